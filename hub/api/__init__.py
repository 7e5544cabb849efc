"""The native API under /api/v1: one function an operation, bound to the table in `openapi.py`."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, Response, request

from hub.api import assignments, devices, document, logs, pipelines, segments
from hub.calls import View, perform
from hub.hub import Hub
from hub.openapi import ROOT, ROUTES, Route

VIEWS: dict[str, View] = {
    "get_document": document.get_document,
    "make_token": devices.make_token,
    "enrol": devices.enrol,
    "list_devices": devices.list_devices,
    "revoke_device": devices.revoke_device,
    "report_inventory": devices.report_inventory,
    "get_own_assignment": assignments.get_own_assignment,
    "get_assignment": assignments.get_assignment,
    "assign": assignments.assign,
    "put_segment": segments.put_segment,
    "get_logs": logs.get_logs,
    "list_pipelines": pipelines.list_pipelines,
}


def make_api(hub: Hub) -> Blueprint:
    """All routes of the table, each with its function."""
    api = Blueprint("api", __name__, url_prefix=ROOT)
    for route in ROUTES:
        _bind(api, hub, route, VIEWS[route.operation])
    return api


def _bind(api: Blueprint, hub: Hub, route: Route, view: View) -> None:
    def answer(**path: Any) -> Response:
        return perform(hub, route, view, request, path)

    rule = re.sub(r"{(\w+)}", r"<\1>", route.path)
    api.add_url_rule(rule, route.operation, answer, methods=[route.method], provide_automatic_options=False)
