"""The door of Wallaroo's edge server: /infer, /pipelines, /models, /logs (docs: wire shapes).

Answers are JSON, nested unless a separator is given; Arrow only when `Accept` asks for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from flask import Blueprint, Response, request

from arch.providers import Choice
from columns.columns import Columns
from columns.focus import focus
from columns.records import encode_records
from columns.schema import Schema
from edge_agent.doors.compression import body_of, packed
from edge_agent.doors.seam import Answer, Call, Query, Route
from edge_agent.doors.values import OCTETS, infer_value
from edge_agent.doors.versions import own_versions
from edge_agent.http.track import Trail
from edge_agent.pipelines import inference
from edge_agent.pipelines.active_pipeline import ActivePipeline, ServedModel
from edge_agent.pipelines.serving import Serving
from edgepack.errors import BadInput

CUSTOM_JSON = "format=wallaroo"  # any JSON: answered by the outputs alone

_RUNNING = "Running"
_MOST_PLANS = 64


class Focus:
    """Which columns a client wants, and how it wants them named: the `dataset` parameters of the query."""

    def __init__(self, query: Query) -> None:
        self._chosen, self._excluded = query.getlist("dataset[]"), query.getlist("dataset.exclude[]")
        self.separator = query.get("dataset.separator")
        self._plans: dict[int, tuple[Schema, Schema]] = {}  # by the schema's id: it, and what is wanted of it

    def check(self, active: ActivePipeline) -> None:
        """Raise BadInput for a name that no result of a pipeline has, before anything is run or logged."""
        if self._chosen or self._excluded:
            self.on(inference.blank_result(active))

    def on(self, result: Columns) -> Columns:
        """The wanted columns of a result."""
        if not (self._chosen or self._excluded):
            return result
        plan = self._plans.get(id(result.schema))
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            wanted = focus(result, self._chosen, self._excluded).schema
            plan = self._plans[id(result.schema)] = (result.schema, wanted)
        return Columns(plan[1], {name: result.arrays[name] for name in plan[1].names}, result.rows)

    def on_logged(self, rows: Columns, known: list[str]) -> Columns:
        """The wanted columns of rows of a log, which may lack some of those that are known."""
        return focus(rows, self._chosen, self._excluded, others=known)


@lru_cache(maxsize=256)
def focus_of(query: str) -> Focus:
    """The focus of a query; clients repeat theirs."""
    return Focus(Query(query))


def infer(serving: Serving, call: Call, pipeline: str | None = None) -> Answer:
    """`POST /infer` and `POST /pipelines/{pipeline}`."""
    wanted, said = focus_of(call.query), call.header("content-type")
    with serving.lease(pipeline, wake_by=call.deadline) as active:
        call.pipeline = active.name
        wanted.check(active)
        body = body_of(call)
        is_bytes = OCTETS in said.lower() and active.loaded.takes_any
        if is_bytes or CUSTOM_JSON in said.lower():
            return packed(call, Answer(*infer_value(active, call, body, is_json=not is_bytes)))
        result = inference.infer(active, call, lambda schema: inference.decode(body, said, schema))
    if call.wants_trail and result.rows == 1:
        call.trail = _trail(active, call, result)
    return packed(call, Answer(*inference.encode(wanted.on(result), call.header("accept"), wanted.separator)))


def _trail(active: ActivePipeline, call: Call, result: Columns) -> Trail:
    wanted, accept, said = focus_of(call.query), call.header("accept"), call.header("content-type")
    schema = active.loaded.input
    return Trail(
        active,
        {name: result.arrays[f"in.{name}"] for name in schema.names},
        lambda body: inference.decode(body, said, schema).arrays,
        result,
        lambda row: inference.encode(wanted.on(row), accept, wanted.separator)[0],
    )


ROUTES = (Route("POST", "/infer", infer), Route("POST", "/pipelines/{pipeline}", infer))


def routes(serving: Serving) -> Blueprint:
    """What of this door waits for the disk, or is asked rarely."""
    door = Blueprint("wallaroo", __name__)

    @door.get("/pipelines")
    def pipelines() -> dict[str, Any]:
        return {"pipelines": [{"id": p.name, "version": p.version, "status": _RUNNING} for p in serving.pipelines]}

    @door.get("/models")
    def models() -> dict[str, Any]:
        return {"models": [each for pipeline in serving.pipelines for each in _models(serving, pipeline)]}

    @door.post("/logs")
    def logs() -> Response:
        return _logs(serving)

    return door


def _models(serving: Serving, pipeline: ActivePipeline) -> list[dict[str, Any]]:
    """The models of the steps, and those that a predictor chooses among, whose digest is that of its step."""
    found = [_model(pipeline, model) for model in pipeline.models]
    own = [ServedModel(name, found[0]["sha"], number) for name, number in own_versions(serving, pipeline)]
    return [*found, *(_model(pipeline, model) for model in own)]


def _model(pipeline: ActivePipeline, model: ServedModel) -> dict[str, Any]:
    """One model; what it computes on is said where that is, or was to be, something else than the CPU."""
    said = {"name": model.name, "sha": model.sha, "version": model.version, "status": _RUNNING}
    choice = pipeline.loaded.providers.get(model.name, Choice())
    if choice.used == Choice().used and not choice.skipped:
        return said
    return {**said, "providers": choice.used, "skipped": choice.skipped}


def _logs(serving: Serving) -> Response:
    """Stream the rows kept of one pipeline (`?pipeline=`), or of each in turn, by name."""
    name, after_seq, limit = request.args.get("pipeline"), _number("after_seq"), _number("limit")
    if name is None and after_seq is not None and len(serving.names) > 1:
        raise BadInput("after_seq counts the rows of one pipeline: say which with ?pipeline=", field="pipeline")
    chosen = []
    for each in [name] if name is not None or not serving.names else serving.names:
        with serving.lease(each) as active:
            chosen.append(active)
    wanted, known = focus_of(request.query_string.decode("latin-1")), _logged_names(chosen)
    wanted.on_logged(Columns(Schema(()), {}, 0), known)  # refuses what no row has
    rows = _rows(chosen, after_seq, limit)
    first = next(rows, None)  # what goes wrong at once still gets a status of its own
    return Response(_as_list(first, rows, wanted, known), content_type=inference.JSON)


def _logged_names(pipelines: list[ActivePipeline]) -> list[str]:
    """The columns that rows of these pipelines may have in the log; not every row has all."""
    names = [
        f"metadata.{name}" for name in ("request_id", "pipeline", "bundle", "seq", "epoch", "shapes", "traceparent")
    ]
    for pipeline in pipelines:
        names += pipeline.result_schema.names
        for step in pipeline.loaded.spec.steps:
            shadow = step.routing.shadow if step.routing else []
            names += [f"out_{model}.{field}" for model in shadow for field in step.output]
    return names


def _rows(pipelines: list[ActivePipeline], after_seq: int | None, limit: int | None) -> Iterator[Columns]:
    for pipeline in pipelines:
        for columns in pipeline.spool.rows(after_seq=after_seq, limit=limit):
            yield columns
            if limit is not None:
                limit -= columns.rows


def _as_list(first: Columns | None, others: Iterator[Columns], wanted: Focus, known: list[str]) -> Iterator[bytes]:
    """One JSON list from many pieces."""
    comma = b"["
    for columns in itertools.chain([first] if first else [], others):
        yield comma + encode_records(wanted.on_logged(columns, known), wanted.separator)[1:-1]
        comma = b","
    yield b"]" if comma == b"," else b"[]"


def _number(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadInput(f"{name} is '{text[:30]}': expected a number, 0 or more", field=name)
    return int(text)
