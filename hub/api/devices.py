"""Tokens, enrolment, the list of devices, revocation, inventories."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from fleet.messages import Assigned, Assignment, Devices, DeviceView, Enrolment, Inventory
from hub import enrolment
from hub.calls import Answer, Call
from hub.hub import Hub
from hub.store import devices


def make_token(call: Call) -> Answer:
    """POST /tokens."""
    with call.hub.database.write() as db:
        token = enrolment.make_token(db, call.body, call.hub.clock(), call.hub.config.token_expires_limit_s)
    return Answer(201, token)


def enrol(call: Call) -> Answer:
    """POST /enrol: token and device in one transaction."""
    with call.hub.database.write() as db:
        device = enrolment.enrol(db, call.body, call.hub.clock())
    return Answer(200, Enrolment(device.id, device.name, call.hub.config.check_in_s))


def list_devices(call: Call) -> Answer:
    """GET /devices."""
    return Answer(200, Devices(device_views(call.hub)))


def revoke_device(call: Call) -> Answer:
    """DELETE /devices/{device}."""
    with call.hub.database.write() as db:
        device = devices.living(db, call.path["device"])
        devices.revoke(db, device.id, int(call.hub.clock()))
    return Answer(204)


def report_inventory(call: Call) -> Answer:
    """PUT /inventory."""
    with call.hub.database.write() as db:
        devices.save_inventory(db, call.device, msgspec.to_builtins(call.body), int(call.hub.clock()))
    return Answer(204)


def device_views(hub: Hub) -> list[DeviceView]:
    """Every living device as the API and the web page show it."""
    with hub.database.read() as db:
        rows = devices.every_device(db)
    return [_view(hub, row) for row in rows]


def _view(hub: Hub, row: Row[Any]) -> DeviceView:
    assignment = None
    if row.sequence is not None:
        pipelines = msgspec.convert(row.pipelines, dict[str, Assigned])
        assignment = Assignment(row.id, row.sequence, pipelines, hub.config.check_in_s)
    return DeviceView(
        id=row.id,
        name=row.name,
        target=row.target,
        group=row.group_name,
        enrolled_at=row.enrolled_at,
        last_seen=hub.presence.last_seen(row.id, row.last_seen),
        assignment=assignment,
        inventory=None if row.inventory is None else msgspec.convert(row.inventory, Inventory),
    )
