"""The door of the Open Inference Protocol v2 with its binary tensor extension: `/v2`.

A model is a pipeline, its tensors are the pipeline's fields. A single native step is asked by its own tensors, rows
or not; every other pipeline by rows. Errors are `{"error"}`; health bodies are JSON, as kserve's client wants them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from columns.columns import Columns
from columns.json_value import with_asked
from columns.oip import InferRequest, decode_request, encode_response
from columns.oip_columns import from_columns, to_columns
from columns.oip_tensors import Tensor, check_head, from_raw
from columns.schema import Schema
from edge_agent.doors.compression import body_of, packed
from edge_agent.doors.oip_model import configuration, statistics
from edge_agent.doors.oip_tensors import inputs_of, outputs_of, platform_of
from edge_agent.doors.seam import Answer, Buffer, Call, Door, Route
from edge_agent.doors.values import asked_of
from edge_agent.doors.versions import check_version, listed, model_asked, named_as, own_versions
from edge_agent.http.track import Trail
from edge_agent.pipelines import inference
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.serving import NotAllowed, Serving
from edge_agent.pipelines.tensor_inference import checked, infer_tensors, is_row_by_row, row_of
from edgepack import __version__
from edgepack.errors import BadInput

BINARY = "application/octet-stream"
JSON_SIZE = "Inference-Header-Content-Length"

_EXTENSIONS = ["binary_tensor_data", "model_repository", "model_configuration", "statistics"]


def infer(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`POST /v2/models/{pipeline}[/versions/{version}]/infer`."""
    start = time.perf_counter_ns()
    with serving.lease(pipeline, version, wake_by=call.deadline) as active:
        call.pipeline = active.name
        check_version(active, version, pipeline, serving.numbers_of(active.name))
        call.check_deadline()
        request = _request(active, call, body_of(call))
        request.wanted(active.loaded.output.names)  # refuses what is not there before the model runs
        asked = asked_of(active, call, **model_asked(active, pipeline, version))
        named = named_as(active, pipeline, version)
        outputs = _outputs(active, call, request, time.perf_counter_ns() - start, asked)
        if call.wants_trail:
            call.trail = _trail(active, named, call, request, outputs)
    body, size = _response(active, named, request, outputs)
    if size is None:
        return packed(call, Answer(body))
    return packed(call, Answer(body, BINARY, headers=((JSON_SIZE, str(size)),)))


def _response(
    active: ActivePipeline, named: tuple[str, str], request: InferRequest, outputs: list[Tensor]
) -> tuple[bytes, int | None]:
    chosen = {tensor.name: tensor for tensor in outputs}
    wanted = request.wanted(active.loaded.output.names)
    return encode_response(*named, request.id, ((chosen[name], raw) for name, raw in wanted.items()))


def _trail(
    active: ActivePipeline, named: tuple[str, str], call: Call, request: InferRequest, outputs: list[Tensor]
) -> Trail | None:
    engine = active.loaded.tensors
    if engine is None:
        return None
    inputs = checked(active, engine, request.tensors)
    row = row_of(active, inputs, {tensor.name: tensor.array for tensor in outputs}, (0, 0))

    def encode(row: Columns) -> bytes:
        shaped = [replace(each, array=row.arrays[f"out.{each.name}"].reshape(each.array.shape)) for each in outputs]
        return _response(active, named, request, shaped)[0]

    def decode(body: bytes) -> Mapping[str, np.ndarray]:
        return checked(active, engine, _request(active, call, body).tensors)

    return Trail(active, inputs, decode, row, encode)


def error_body(code: int, message: str) -> bytes:
    """The protocol's error object."""
    return orjson.dumps({"error": message})


def _request(active: ActivePipeline, call: Call, body: Buffer) -> InferRequest:
    text = call.header(JSON_SIZE.lower())
    if not text:
        return decode_request(body)
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadInput(f"{JSON_SIZE} is '{text[:30]}': expected a number of bytes", field=JSON_SIZE)
    return decode_request(body, int(text)) if int(text) else _bare(active, memoryview(body))


def _bare(active: ActivePipeline, body: memoryview) -> InferRequest:
    """A body without JSON: the only input's raw elements; its last free axis takes what there is."""
    inputs = inputs_of(active)
    if len(inputs) != 1:
        raise BadInput(f"a body without JSON is for models of one input, this one has {len(inputs)}")
    name, datatype, shape = inputs[0]["name"], inputs[0]["datatype"], inputs[0]["shape"]
    if datatype == "BYTES":
        body = memoryview(len(body).to_bytes(4, "little") + body)
    fixed = [max(1, size) for size in shape]
    count = len(body) // _item_size(datatype) if datatype != "BYTES" else 1
    if -1 in shape and count:
        axis = len(shape) - 1 - shape[::-1].index(-1)
        fixed[axis] = max(1, count // check_head(name, datatype, fixed))
    return InferRequest("", {name: from_raw(name, datatype, fixed, body)}, raw=True)


def _item_size(datatype: str) -> int:
    return {"BOOL": 1, "BF16": 2}.get(datatype) or int(datatype.strip("UINTFP")) // 8


def _outputs(
    active: ActivePipeline, call: Call, request: InferRequest, parse_ns: int, asked: Mapping[str, str]
) -> list[Tensor]:
    engine = active.loaded.tensors
    if engine is not None and not is_row_by_row(engine, request.tensors):
        return infer_tensors(active, engine, call, request.tensors, parse_ns)
    more = {name: text for name, text in asked.items() if name not in request.tensors}

    def read(schema: Schema) -> Columns:
        given = Schema(tuple(field for field in schema if field.name not in more))
        return with_asked(to_columns(request.tensors, given), more)

    result = inference.infer(active, call, read)
    return from_columns(inference.outputs_of(active, result))


# What is served


def server(serving: Serving, call: Call) -> Answer:
    """`GET /v2`."""
    return _json({"name": "edgepack-agent", "version": __version__, "extensions": _EXTENSIONS})


def live(serving: Serving, call: Call) -> Answer:
    """`GET /v2/health/live`."""
    return _json({"live": True})


def ready(serving: Serving, call: Call) -> Answer:
    """`GET /v2/health/ready`: 503 until every pipeline is loaded."""
    reason = serving.waiting_for
    return _json({"ready": True}) if reason is None else _json({"ready": False, "reason": reason}, 503)


def models(serving: Serving, call: Call) -> Answer:
    """`GET /v2/models`."""
    return _json({"models": sorted({*serving.known, *serving.owned})})


def model(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`GET /v2/models/{pipeline}[/versions/{version}]`."""
    with serving.lease(pipeline, version) as active:
        check_version(active, version, pipeline)
        return _json(
            {
                "name": pipeline,
                "versions": listed(serving, active, pipeline),
                "platform": platform_of(active),
                "inputs": inputs_of(active),
                "outputs": outputs_of(active),
            }
        )


def model_ready(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`GET /v2/models/{pipeline}[/versions/{version}]/ready`."""
    with serving.lease(pipeline, version) as active:
        check_version(active, version, pipeline)
        return _json({"name": pipeline, "ready": True})


def model_config(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`GET /v2/models/{pipeline}[/versions/{version}]/config`."""
    with serving.lease(pipeline, version) as active:
        check_version(active, version, pipeline)
        return _json({**configuration(active), "name": pipeline})


def model_stats(serving: Serving, call: Call, pipeline: str | None = None, version: str | None = None) -> Answer:
    """`GET /v2/models[/{pipeline}[/versions/{version}]]/stats`."""
    if pipeline is None:
        chosen = serving.pipelines
    else:
        with serving.lease(pipeline, version) as active:
            check_version(active, version, pipeline)
            chosen = [active]
    return _json({"model_stats": [statistics(each, serving.tally(each.name)) for each in chosen]})


def index(serving: Serving, call: Call) -> Answer:
    """`POST /v2/repository/index`; with `{"ready": true}` only what is ready."""
    ready = [
        {"name": name, "version": version, "state": "READY", "reason": serving.troubles.get(p.name, "")}
        for p in serving.pipelines
        for name, version in [(p.name, p.version), *own_versions(serving, p)]
    ]
    others = [{"name": name, "state": "UNAVAILABLE", "reason": why} for name, why in _unavailable(serving).items()]
    return _json([*ready, *(() if _asks_for_ready(call.body) else others)])


def _unavailable(serving: Serving) -> dict[str, str]:
    """Why models do not answer just now: of those that were let go of that, else what is wrong with their files."""
    troubles = {name: why for name, why in serving.troubles.items() if name not in serving.names}
    resting = serving.resting
    asleep = [*resting, *(name for name, owner in serving.owned.items() if owner in resting)]
    let_go = dict.fromkeys(serving.unloaded, "unloaded") | dict.fromkeys(asleep, "rests to save memory")
    return troubles | {name: "; ".join([why, *filter(None, [troubles.get(name)])]) for name, why in let_go.items()}


def load(serving: Serving, call: Call, pipeline: str) -> Answer:
    """`POST /v2/repository/models/{pipeline}/load`: done already where the agent has it."""
    if serving.control is not None:
        serving.control.load(pipeline)
    else:
        with serving.lease(pipeline):
            pass  # it answers; what does not is refused as everywhere else
    return _json({})


def unload(serving: Serving, call: Call, pipeline: str) -> Answer:
    """`POST /v2/repository/models/{pipeline}/unload`."""
    if pipeline in serving.unloaded:
        return _json({})
    with serving.lease(pipeline):
        control = serving.control
    if control is None:
        raise NotAllowed(
            f"pipeline '{pipeline}' stays loaded: the hub, or who started the agent, decides what it serves; "
            "EDGEPACK_MODEL_CONTROL=explicit leaves it to clients"
        )
    control.unload(pipeline)
    return _json({})


def _asks_for_ready(body: Buffer) -> bool:
    try:
        said = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise BadInput(f"the body is not JSON: {error}") from error
    return isinstance(said, dict) and said.get("ready") is True


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(value), status=status)


def _routes() -> list[Route]:
    asked: list[tuple[str, str, Door]] = [
        ("GET", "/v2", server),
        ("GET", "/v2/health/live", live),
        ("GET", "/v2/health/ready", ready),
        ("GET", "/v2/models", models),
        ("GET", "/v2/models/stats", model_stats),
        ("POST", "/v2/repository/index", index),
    ]
    for path in ("/v2/models/{pipeline}", "/v2/models/{pipeline}/versions/{version}"):
        asked += [("GET", path, model), ("GET", path + "/ready", model_ready)]
        asked += [("GET", path + "/config", model_config), ("GET", path + "/stats", model_stats)]
    about = [Route(method, path, door, error_body, "inline", counted=False) for method, path, door in asked]
    paths = ("/v2/models/{pipeline}/infer", "/v2/models/{pipeline}/versions/{version}/infer")
    controlled = [
        Route("POST", f"/v2/repository/models/{{pipeline}}/{door.__name__}", door, error_body, "in_thread", False)
        for door in (load, unload)
    ]
    return [*(Route("POST", path, infer, error_body) for path in paths), *about, *controlled]


ROUTES = tuple(_routes())
