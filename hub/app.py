"""`create_app`: the WSGI application over a hub.

A table of contents: who answers what, and what happens to every answer.
"""

from __future__ import annotations

import msgspec
from flask import Flask, Response, request

from hub.api import make_api
from hub.edge import answer_error
from hub.hub import Hub
from hub.metrics import Metrics
from hub.registry.routes import make_registry
from hub.web import make_web


def create_app(hub: Hub) -> Flask:
    """Make the application."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    metrics = Metrics(hub)
    app.register_blueprint(make_api(hub))
    app.register_blueprint(make_registry(hub))
    app.register_blueprint(make_web(hub))
    app.register_error_handler(Exception, answer_error)
    app.add_url_rule("/healthz", "healthz", lambda: _health(hub), methods=["GET"])
    app.add_url_rule("/metrics", "metrics", metrics.answer, methods=["GET"])
    app.after_request(metrics.count)
    app.after_request(_guard)
    return app


def _health(hub: Hub) -> Response:
    with hub.database.read() as db:
        db.exec_driver_sql("SELECT 1")
    return Response(msgspec.json.encode({"status": "ok"}), 200, mimetype="application/json")


def _guard(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.path.startswith("/api/"):
        response.headers["Cache-Control"] = "no-store"
    return response
