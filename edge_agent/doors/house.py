"""The house's own door: health, metrics, the OpenAPI document and the status page."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, Response, request

from edge_agent.doors.openapi import document
from edge_agent.doors.page import status_page
from edge_agent.pipelines.serving import Serving
from edge_agent.telemetry.metrics import CONTENT_TYPE, Metrics


def routes(serving: Serving, metrics: Metrics) -> Blueprint:
    """The routes of this door."""
    door = Blueprint("house", __name__)

    @door.get("/healthz")
    def healthz() -> dict[str, Any]:
        return {"status": "alive"}

    @door.get("/readyz")
    def readyz() -> tuple[dict[str, Any], int]:
        reason = serving.waiting_for
        if reason:
            return {"status": "waiting", "reason": reason, "pipelines": serving.names}, 503
        return {"status": "ready", "pipelines": serving.names}, 200

    @door.get("/metrics")
    def figures() -> Response:
        return Response(metrics.render(serving), content_type=CONTENT_TYPE)

    @door.get("/openapi.json")
    def openapi() -> dict[str, Any]:
        return document(serving)

    @door.get("/")
    def root() -> Response | dict[str, Any]:
        if "text/html" not in request.headers.get("Accept", ""):
            return {"status": "alive"}
        nonce = secrets.token_urlsafe(16)
        page = Response(status_page(serving, nonce), content_type="text/html; charset=utf-8")
        page.headers["Content-Security-Policy"] = (
            f"default-src 'none'; connect-src 'self'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
        )
        page.headers["Cache-Control"] = "no-store"
        return page

    return door
