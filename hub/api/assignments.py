"""What a device should run, as it and the operator read it and as the operator changes it."""

from __future__ import annotations

from fleet.messages import Assignment
from fleet.wire import sequence_tag
from hub import assigning
from hub.calls import Answer, Call
from hub.store import devices


def get_own_assignment(call: Call) -> Answer:
    """GET /assignment."""
    with call.hub.database.read() as db:
        found = assigning.assignment_of(db, call.device, call.hub.config.check_in_s)
    return _unless_known(call, found)


def get_assignment(call: Call) -> Answer:
    """GET /assignments/{device}."""
    with call.hub.database.read() as db:
        device = devices.living(db, call.path["device"])
        found = assigning.assignment_of(db, device.id, call.hub.config.check_in_s)
    return _unless_known(call, found)


def assign(call: Call) -> Answer:
    """PUT /assignments/{device}."""
    with call.hub.database.write() as db:
        device = devices.living(db, call.path["device"])
        assigning.assign(db, device, call.body.pipelines, call.request.headers.get("If-Match"))
        found = assigning.assignment_of(db, device.id, call.hub.config.check_in_s)
    return Answer(200, found, headers={"ETag": sequence_tag(found.sequence)})


def _unless_known(call: Call, found: Assignment) -> Answer:
    tag = sequence_tag(found.sequence)
    known = [each.strip() for each in call.request.headers.get("If-None-Match", "").split(",")]
    if tag in known or f"W/{tag}" in known:
        return Answer(304, headers={"ETag": tag})
    return Answer(200, found, headers={"ETag": tag})
