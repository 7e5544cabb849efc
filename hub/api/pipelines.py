"""What is published."""

from __future__ import annotations

from fleet.messages import Pipelines
from hub.calls import Answer, Call
from hub.store import pipelines


def list_pipelines(call: Call) -> Answer:
    """GET /pipelines."""
    with call.hub.database.read() as db:
        return Answer(200, Pipelines(pipelines.every_version(db)))
