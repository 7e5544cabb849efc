"""The door of Wallaroo's edge server: /infer, /pipelines, /models, /logs (docs: wire shapes).

Answers are JSON, nested unless a separator is given; Arrow only when `Accept` asks for it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, g, request

from columns.columns import Columns
from columns.focus import focus
from columns.records import encode_records
from edge_agent import inference
from edge_agent.metrics import Metrics
from edge_agent.serving import ActivePipeline, Serving
from edgepack.errors import BadInput

_RUNNING = "Running"


@dataclass(frozen=True)
class Focus:
    """Which columns a client wants, and how it wants them named: the `dataset` parameters of the query."""

    chosen: list[str]
    excluded: list[str]
    separator: str | None

    @classmethod
    def of_request(cls) -> Focus:
        """Read the query of the current request."""
        query = request.args
        return cls(query.getlist("dataset[]"), query.getlist("dataset.exclude[]"), query.get("dataset.separator"))

    def check(self, active: ActivePipeline) -> None:
        """Raise BadInput for a name that no result of a pipeline has, before anything is run or logged."""
        if self.chosen or self.excluded:
            self.of(inference.blank_result(active))

    def of(self, result: Columns) -> Columns:
        """The wanted columns of a result."""
        return focus(result, self.chosen, self.excluded)


def routes(serving: Serving, metrics: Metrics) -> Blueprint:
    """The routes of this door."""
    door = Blueprint("wallaroo", __name__)
    _add_inference(door, serving, metrics)

    @door.get("/pipelines")
    def pipelines() -> dict[str, Any]:
        return {"pipelines": [{"id": p.name, "version": p.version, "status": _RUNNING} for p in serving.pipelines]}

    @door.get("/models")
    def models() -> dict[str, Any]:
        served = [model for pipeline in serving.pipelines for model in pipeline.models]
        return {"models": [{"name": m.name, "sha": m.sha, "version": m.version, "status": _RUNNING} for m in served]}

    @door.post("/logs")
    def logs() -> Response:
        return _logs(serving)

    return door


def _add_inference(door: Blueprint, serving: Serving, metrics: Metrics) -> None:
    @door.post("/infer", defaults={"name": None}, endpoint="infer")
    @door.post("/pipelines/<name>", endpoint="infer")
    def infer(name: str | None) -> Response:
        g.started = time.perf_counter()
        return _infer(serving, name)

    @door.after_request
    def count(response: Response) -> Response:
        if "started" in g:
            seconds = time.perf_counter() - g.started
            metrics.observe(g.get("pipeline", ""), response.status_code, g.get("rows", 0), seconds)
        return response


def _infer(serving: Serving, name: str | None) -> Response:
    body, wanted = read_body(), Focus.of_request()
    with serving.lease(name) as active:
        g.pipeline = active.name
        wanted.check(active)
        result = inference.infer(active, body, request.content_type or "", g.request_id)
    g.rows = result.rows
    answer, media_type = inference.encode(wanted.of(result), request.headers.get("Accept", ""), wanted.separator)
    return Response(answer, content_type=media_type)


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


def _logs(serving: Serving) -> Response:
    """Stream the rows kept of one pipeline (`?pipeline=`), or of each in turn, by name."""
    name, after_seq, limit = request.args.get("pipeline"), _number("after_seq"), _number("limit")
    if name is None and after_seq is not None and len(serving.names) > 1:
        raise BadInput("after_seq counts the rows of one pipeline: say which with ?pipeline=", field="pipeline")
    chosen = []
    for each in [name] if name is not None or not serving.names else serving.names:
        with serving.lease(each) as active:
            chosen.append(active)
    rows = _rows(chosen, after_seq, limit)
    first = next(rows, None)  # what goes wrong at once still gets a status of its own
    return Response(_as_list(first, rows, Focus.of_request()), content_type=inference.JSON)


def _rows(pipelines: list[ActivePipeline], after_seq: int | None, limit: int | None) -> Iterator[Columns]:
    for pipeline in pipelines:
        for columns in pipeline.spool.rows(after_seq=after_seq, limit=limit):
            yield columns
            if limit is not None:
                limit -= columns.rows


def _as_list(first: Columns | None, others: Iterator[Columns], wanted: Focus) -> Iterator[bytes]:
    """One JSON list from many pieces."""
    comma = b"["
    for columns in itertools.chain([first] if first else [], others):
        yield comma + encode_records(wanted.of(columns), wanted.separator)[1:-1]
        comma = b","
    yield b"]" if comma == b"," else b"[]"


def _number(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadInput(f"{name} is '{text[:30]}': expected a number, 0 or more", field=name)
    return int(text)
