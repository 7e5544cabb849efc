"""The Flask application: the protocols' routes; request ids, limits and error bodies for all of them."""

from __future__ import annotations

import logging
import math
import re
import uuid

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from edge_agent.doors import house, wallaroo
from edge_agent.inference import WrongMediaType
from edge_agent.metrics import Metrics
from edge_agent.server import BodyTooLarge, error_body
from edge_agent.serving import NotServed, Serving
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable

log = logging.getLogger("edgepack.agent")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_STATUS: tuple[tuple[type[EdgepackError], int], ...] = (
    (NotServed, 404),
    (WrongMediaType, 415),
    (BodyTooLarge, 413),
    (BadInput, 400),
    (Unreachable, 503),  # not loaded yet, or the log takes no rows
    (
        RuntimeFailed,
        422,
    ),  # the model answered its golden rows here: that it cannot run these lies in the rows
)


def make_app(serving: Serving, metrics: Metrics | None = None) -> Flask:
    """Put the doors before what is served. The app holds nothing itself."""
    app = Flask("edge_agent", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    app.url_map.strict_slashes = False
    metrics = metrics or Metrics()
    app.before_request(_take_request_id)
    app.after_request(_give_request_id)
    app.register_error_handler(EdgepackError, _refused)
    app.register_error_handler(HTTPException, _http_refused)
    app.register_error_handler(MemoryError, _out_of_memory)
    app.register_error_handler(Exception, _fault)
    app.register_blueprint(wallaroo.routes(serving, metrics))
    app.register_blueprint(house.routes(serving, metrics))
    return app


def status_of(error: EdgepackError) -> int:
    """The HTTP status that tells a client what to do about an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _take_request_id() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def _give_request_id(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id") or str(uuid.uuid4())
    return response


def _refused(error: EdgepackError) -> Response:
    status = status_of(error)
    if status == 500:
        log.error("request failed: %s", error)
    response = _error(status, str(error))
    if isinstance(error, Unreachable):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
    return response


def _http_refused(error: HTTPException) -> Response:
    path, allowed = request.path[:100], ", ".join(getattr(error, "valid_methods", None) or ())
    words = {
        404: f"no route '{path}': GET /openapi.json lists all",
        405: f"method {request.method} is not for '{path}': use {allowed}",
    }
    status = error.code or 500
    response = _error(status, words.get(status) or error.description or error.name)
    if allowed:
        response.headers["Allow"] = allowed
    return response


def _out_of_memory(error: MemoryError) -> Response:
    response = _error(503, "not enough memory for this request: send fewer rows at once")
    response.headers["Retry-After"] = "5"
    return response


def _fault(error: Exception) -> Response:
    log.exception("fault of ours")
    return _error(500, f"fault of ours: {type(error).__name__}; the agent's log says more")


def _error(status: int, message: str) -> Response:
    return Response(error_body(status, message), status, content_type="application/json")
