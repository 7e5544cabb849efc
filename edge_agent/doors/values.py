"""Any JSON, or bytes, to a pipeline and back: what `/predict`, `format=wallaroo` and KServe v1 have in common.

A pipeline whose first step has no schema takes the body as one value (`columns.json_value`), JSON or bytes, whatever it
is, and where it wants to know how it was asked, the query and the headers. For all others the body's shape says how its
rows are meant, and the answer has the same.
"""

from __future__ import annotations

from urllib.parse import urlencode

import orjson

from columns.columns import Columns
from columns.json_value import (
    BYTES_VALUE,
    HEADERS,
    JSON_VALUE,
    QUERY,
    Shape,
    columns_of,
    encode_shaped,
    encode_value,
    load_json,
    one_value,
    with_asked,
)
from columns.schema import Schema
from edge_agent.doors.seam import Buffer, Call
from edge_agent.pipelines import inference
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.inference import WrongMediaType

OCTETS = "application/octet-stream"
_SECRET = ("authorization", "proxy-authorization", "cookie")  # headers that no model is told, and no log keeps


def infer_value(active: ActivePipeline, call: Call, body: Buffer, *, is_json: bool) -> tuple[bytes, str]:
    """Answer one body: JSON text, or bytes where a pipeline without schema gives bytes; with the media type."""
    shape: Shape = "rows"

    def read(schema: Schema) -> Columns:
        nonlocal shape
        if active.loaded.takes_any:
            return with_asked(one_value(body, is_json=is_json), asked_of(active, call))
        if schema in (JSON_VALUE, BYTES_VALUE):
            return _value(schema, body, is_json=is_json)
        if not is_json:
            raise WrongMediaType(f"pipeline '{active.name}' takes {schema.listing}: send JSON", field="Content-Type")
        columns, shape = columns_of(load_json(body), schema)
        return columns

    outputs = inference.outputs_of(active, inference.infer(active, call, read))
    if outputs.schema == BYTES_VALUE:
        return encode_value(outputs), OCTETS
    return (encode_value(outputs) if outputs.schema == JSON_VALUE else encode_shaped(outputs, shape)), inference.JSON


def asked_of(active: ActivePipeline, call: Call, **named: str | None) -> dict[str, str]:
    """How a pipeline was asked, as far as it wants to know: its query, else one made of what its path `named`."""
    wanted = active.loaded.input.names[1:] if active.loaded.takes_any else ()
    said: dict[str, str] = {}
    if QUERY in wanted:
        said[QUERY] = call.query or urlencode({name: value for name, value in named.items() if value})
    if HEADERS in wanted:
        told = {name: value for name, value in call.headers.items() if name not in _SECRET}
        said[HEADERS] = orjson.dumps(told).decode()
    return said


def _value(schema: Schema, body: Buffer, *, is_json: bool) -> Columns:
    if is_json == (schema == BYTES_VALUE):
        expected = "bytes (application/octet-stream)" if is_json else "JSON"
        raise WrongMediaType(f"this pipeline takes {expected}", field="Content-Type")
    return one_value(body, is_json=is_json)
