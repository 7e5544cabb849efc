"""The door of KServe's v1 protocol: `GET /v1/models[/{pipeline}]`, `POST /v1/models/{pipeline}:predict`.

Source: the "V1 Inference Protocol" of KServe's documentation. `instances` are rows, `inputs` are columns (or rows);
`predictions` always holds one element a row. For a pipeline of steps without schema each
instance is one JSON value.
"""

from __future__ import annotations

import orjson

from columns.columns import Columns
from columns.json_value import (
    JSON_VALUE,
    columns_of,
    encode_rows,
    encode_values,
    is_value,
    load_json,
    values,
    with_asked,
)
from columns.schema import Schema
from columns.types import clip
from edge_agent.doors.compression import body_of, packed
from edge_agent.doors.seam import Answer, Call, Route
from edge_agent.doors.values import asked_of
from edge_agent.doors.versions import model_asked
from edge_agent.pipelines import inference
from edge_agent.pipelines.serving import Serving
from edgepack.errors import BadInput

_ROWS = ("instances", "inputs")


def predict(serving: Serving, call: Call, pipeline: str) -> Answer:
    """`POST /v1/models/{pipeline}:predict`."""
    with serving.lease(pipeline, wake_by=call.deadline) as active:
        call.pipeline = active.name
        body = body_of(call)
        asked = asked_of(active, call, **model_asked(active, pipeline, None))
        result = inference.infer(active, call, lambda schema: with_asked(_columns(bytes(body), schema), asked))
        outputs = inference.outputs_of(active, result)
    predictions = encode_values(outputs) if outputs.schema == JSON_VALUE else encode_rows(outputs)
    return packed(call, Answer(b'{"predictions":' + predictions + b"}"))


def models(serving: Serving, call: Call) -> Answer:
    """`GET /v1/models`."""
    return Answer(orjson.dumps({"models": sorted({*serving.known, *serving.owned})}))


def model(serving: Serving, call: Call, pipeline: str) -> Answer:
    """`GET /v1/models/{pipeline}`."""
    with serving.lease(pipeline):
        return Answer(orjson.dumps({"name": pipeline, "ready": True}))


def _columns(body: bytes, schema: Schema) -> Columns:
    found = load_json(body)
    given = [name for name in _ROWS if isinstance(found, dict) and name in found]
    if len(given) != 1:
        raise BadInput('the body is no prediction request: expected {"instances": [row, ...]}', field="instances")
    unknown = sorted(found.keys() - {*_ROWS, "signature_name", "parameters"})
    if unknown:
        raise BadInput(f"the body has an unknown member '{clip(unknown[0])}'", field=clip(unknown[0]))
    rows = found[given[0]]
    if given[0] == "instances" and not isinstance(rows, list):
        raise BadInput("'instances' is no list of rows", field="instances")
    if is_value(schema):
        return values(rows if isinstance(rows, list) else [rows])
    return columns_of(rows, schema)[0]


ROUTES = (
    Route("POST", "/v1/models/{pipeline}:predict", predict),
    Route("GET", "/v1/models", models, runs="inline", counted=False),
    Route("GET", "/v1/models/{pipeline}", model, runs="inline", counted=False),
)
