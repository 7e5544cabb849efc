"""The door of the Open Inference Protocol v2 with its binary tensor extension: `/v2`.

A model is a pipeline, its tensors are the pipeline's fields. A single native step is asked by its own tensors, rows
or not; every other pipeline by rows. Errors are `{"error"}`; health bodies are JSON, as kserve's client wants them.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from columns.oip import InferRequest, decode_request, encode_response
from columns.oip_columns import describe, from_columns, to_columns
from columns.oip_tensors import Tensor, check_head, from_raw
from edge_agent import inference
from edge_agent.doors.compression import body_of, packed
from edge_agent.doors.seam import Answer, Buffer, Call, Door, Route
from edge_agent.doors.versions import check_version
from edge_agent.serving import ActivePipeline, NotServed, Serving
from edge_agent.tensor_inference import infer_tensors, is_row_by_row
from edgepack import __version__
from edgepack.errors import BadInput
from runtimes.protocol import TensorField

BINARY = "application/octet-stream"
JSON_SIZE = "Inference-Header-Content-Length"

_EXTENSIONS = ["binary_tensor_data", "model_repository"]


def infer(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`POST /v2/models/{pipeline}[/versions/{version}]/infer`."""
    start = time.perf_counter_ns()
    with serving.lease(pipeline) as active:
        call.pipeline = active.name
        check_version(active, version)
        call.check_deadline()
        request = _request(active, call, body_of(call))
        wanted = request.wanted(active.loaded.output.names)
        outputs = _outputs(active, call, request, time.perf_counter_ns() - start)
    chosen = {tensor.name: tensor for tensor in outputs}
    body, size = encode_response(
        active.name, active.version, request.id, ((chosen[name], raw) for name, raw in wanted.items())
    )
    if size is None:
        return packed(call, Answer(body))
    return packed(call, Answer(body, BINARY, headers=((JSON_SIZE, str(size)),)))


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
    inputs = _inputs(active)
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


def _outputs(active: ActivePipeline, call: Call, request: InferRequest, parse_ns: int) -> list[Tensor]:
    engine = active.loaded.tensors
    if engine is not None and not is_row_by_row(engine, request.tensors):
        return infer_tensors(active, engine, call, request.tensors, parse_ns)
    result = inference.infer(active, call, lambda schema: to_columns(request.tensors, schema))
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
    return _json({"models": serving.names})


def model(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`GET /v2/models/{pipeline}[/versions/{version}]`."""
    with serving.lease(pipeline) as active:
        check_version(active, version)
        return _json(
            {
                "name": active.name,
                "versions": [active.version],
                "platform": _platform(active),
                "inputs": _inputs(active),
                "outputs": _sides(active)[1],
            }
        )


def model_ready(serving: Serving, call: Call, pipeline: str, version: str | None = None) -> Answer:
    """`GET /v2/models/{pipeline}[/versions/{version}]/ready`."""
    with serving.lease(pipeline) as active:
        check_version(active, version)
        return _json({"name": active.name, "ready": True})


def index(serving: Serving, call: Call) -> Answer:
    """`POST /v2/repository/index`."""
    return _json([{"name": p.name, "version": p.version, "state": "READY", "reason": ""} for p in serving.pipelines])


def load(serving: Serving, call: Call, pipeline: str) -> Answer:
    """`POST /v2/repository/models/{pipeline}/load`: done already where the agent has it."""
    with serving.lease(pipeline):
        return _json({})


def unload(serving: Serving, call: Call, pipeline: str) -> Answer:
    """`POST /v2/repository/models/{pipeline}/unload`: refused, as whoever deploys decides what a device serves."""
    if pipeline not in serving.names:
        raise NotServed(f"pipeline '{pipeline[:100]}' is not served here", field="pipeline")
    raise BadInput(f"pipeline '{pipeline}' stays loaded: the hub, or who started the agent, decides what it serves")


def _inputs(active: ActivePipeline) -> list[dict[str, Any]]:
    return _sides(active)[0]


def _sides(active: ActivePipeline) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs as metadata lists them: the engine's own tensors, or the fields' as rows."""
    engine, rows = active.loaded.tensors, (describe(active.loaded.input), describe(active.loaded.output))
    if engine is None:
        return rows
    sides = engine.tensor_inputs, engine.tensor_outputs
    found = [
        [_described(field, each) for field, each in zip(side, like, strict=True)]
        for side, like in zip(sides, rows, strict=True)
    ]
    return found[0], found[1]


def _described(field: TensorField, like: dict[str, Any]) -> dict[str, Any]:
    shape = like["shape"] if field.shape is None else [-1 if size is None else size for size in field.shape]
    return {"name": field.name, "datatype": field.datatype, "shape": shape}


def _platform(active: ActivePipeline) -> str:
    steps = active.loaded.spec.steps
    return f"{steps[0].runtime}_{steps[0].runtime}v1" if active.loaded.tensors is not None else "edgepack_pipeline"


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(value), status=status)


def _routes() -> list[Route]:
    asked: list[tuple[str, str, Door]] = [
        ("GET", "/v2", server),
        ("GET", "/v2/health/live", live),
        ("GET", "/v2/health/ready", ready),
        ("GET", "/v2/models", models),
        ("POST", "/v2/repository/index", index),
        ("POST", "/v2/repository/models/{pipeline}/load", load),
        ("POST", "/v2/repository/models/{pipeline}/unload", unload),
    ]
    for path in ("/v2/models/{pipeline}", "/v2/models/{pipeline}/versions/{version}"):
        asked += [("GET", path, model), ("GET", path + "/ready", model_ready)]
    about = [Route(method, path, door, error_body, "inline", counted=False) for method, path, door in asked]
    paths = ("/v2/models/{pipeline}/infer", "/v2/models/{pipeline}/versions/{version}/infer")
    return [*(Route("POST", path, infer, error_body) for path in paths), *about]


ROUTES = tuple(_routes())
