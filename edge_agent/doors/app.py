"""The Flask application: the protocols' routes; request ids, limits and error bodies for all of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from edge_agent.doors import house, wallaroo
from edge_agent.doors.seam import Answer, Call, Route, error_body, refusal, request_id_of, respond, settle
from edge_agent.doors.table import TABLE
from edge_agent.pipelines.serving import Serving
from edge_agent.telemetry.events import event
from edge_agent.telemetry.metrics import Metrics
from edge_agent.telemetry.trace_context import read_trace
from edgepack.errors import BadInput, EdgepackError

access_log = logging.getLogger("edgepack.access")


def make_app(serving: Serving, metrics: Metrics | None = None) -> Flask:
    """Put the doors before what is served. The app holds nothing itself."""
    app = Flask("edge_agent", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # no redirects: a path is a route or is none
    metrics = metrics or Metrics()
    serving.tally = metrics.tally
    app.before_request(_take_request_id)
    app.after_request(_give_request_id)
    app.register_error_handler(HTTPException, _http_refused)
    app.register_error_handler(Exception, _refused)
    _add_routes(app, serving, metrics)
    app.register_blueprint(wallaroo.routes(serving))
    app.register_blueprint(house.routes(serving, metrics))
    return app


def _add_routes(app: Flask, serving: Serving, metrics: Metrics) -> None:
    """Every line of the table as a Flask route, for servers that do not look into the table themselves."""
    lock = threading.Lock()
    for number, route in enumerate(TABLE.routes):
        path = route.pattern.replace("{", "<").replace("}", ">")
        app.add_url_rule(path, f"table-{number}", _view(route, serving, metrics, lock), methods=[route.method])


def _view(route: Route, serving: Serving, metrics: Metrics, lock: threading.Lock) -> Callable[..., Response]:
    def view(**params: str) -> Response:
        call = Call(request.method, request.path, request.query_string.decode("latin-1"), {}, b"", g.request_id)
        call.headers = {name.lower(): value for name, value in request.headers.items()}
        call.trace = read_trace(call.headers)
        try:
            call.body = read_body()
            answer = settle(route, call, respond(route, serving, call, params))
        except EdgepackError as error:
            answer = refusal(error, route.error_body, call.request_id)
        if route.counted:
            with lock:
                metrics.observe(route, call, answer.status)
        if call.trace is not None:
            answer.headers = (*answer.headers, *call.trace.headers)
        return _response(answer)

    return view


def read_body() -> bytes:
    """The whole body. Raises BadInput for one that is cut short or badly chunked, BodyTooLarge."""
    stream, environ = request.environ["wsgi.input"], request.environ
    if environ.get("wsgi.input_terminated"):
        return bytes(stream.read())
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = stream.read(length)
    if len(body) != length:
        raise BadInput(f"the body is cut short: {length} bytes were announced, {len(body)} came")
    return body


def _response(answer: Answer) -> Response:
    response = Response(answer.join(), answer.status, content_type=answer.media_type)
    response.headers.extend(answer.headers)
    return response


def _take_request_id() -> None:
    g.started_ns = time.perf_counter_ns()
    g.request_id = request_id_of(request.headers.get("X-Request-Id"))


def _give_request_id(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id") or request_id_of(None)
    if access_log.isEnabledFor(logging.INFO):
        took_ms = round((time.perf_counter_ns() - g.started_ns) / 1e6, 3)
        route = request.url_rule.rule if request.url_rule else ""
        fields = {"request_id": g.request_id, "method": request.method, "route": route, "code": response.status_code}
        event(access_log, "request", **fields, took_ms=took_ms)
    return response


def _refused(error: Exception) -> Response:
    return _response(refusal(error, request_id=g.get("request_id", "")))


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


def _error(status: int, message: str) -> Response:
    return Response(error_body(status, message), status, content_type="application/json")
