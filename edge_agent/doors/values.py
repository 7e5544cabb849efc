"""Any JSON, or bytes, to a pipeline and back: what `/predict`, `format=wallaroo` and KServe v1 have in common.

A pipeline whose first step has no schema takes the body as one value (`columns.json_value`), JSON or bytes, whatever it
is. For all others the body's shape says how its rows are meant, and the answer has the same.
"""

from __future__ import annotations

from columns.columns import Columns
from columns.json_value import (
    BYTES_VALUE,
    JSON_VALUE,
    Shape,
    columns_of,
    encode_shaped,
    encode_value,
    load_json,
    one_value,
)
from columns.schema import Schema
from edge_agent import inference
from edge_agent.doors.seam import Buffer, Call
from edge_agent.inference import WrongMediaType
from edge_agent.serving import ActivePipeline

OCTETS = "application/octet-stream"


def infer_value(active: ActivePipeline, call: Call, body: Buffer, *, is_json: bool) -> tuple[bytes, str]:
    """Answer one body: JSON text, or bytes where a pipeline without schema gives bytes; with the media type."""
    shape: Shape = "rows"

    def read(schema: Schema) -> Columns:
        nonlocal shape
        if active.loaded.takes_any:
            return one_value(body, is_json=is_json)
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


def _value(schema: Schema, body: Buffer, *, is_json: bool) -> Columns:
    if is_json == (schema == BYTES_VALUE):
        expected = "bytes (application/octet-stream)" if is_json else "JSON"
        raise WrongMediaType(f"this pipeline takes {expected}", field="Content-Type")
    return one_value(body, is_json=is_json)
