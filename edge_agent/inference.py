"""One inference from body to logged result, whatever protocol it came by.

Decode, check, run, put the result together, hand it to the spool: only then may an answer be made of it.
The columns of a result, in answers and in the log, are those of docs/agent-http.md.
"""

from __future__ import annotations

import time

import numpy as np

from columns.columns import Columns, constant
from columns.records import decode_records, encode_records
from columns.schema import Schema
from edge_agent.serving import ActivePipeline
from edgepack.errors import BadInput
from runtimes.pipeline import Outcome

ARROW_FILE = "application/vnd.apache.arrow.file"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
RECORDS = "application/json; format=pandas-records"
JSON = "application/json"

_ARROW_MAGIC = (b"ARROW1", b"\xff\xff\xff\xff")  # IPC file; IPC stream ("Encapsulated message format")


class WrongMediaType(BadInput):
    """The body is of a kind that this door does not read."""


def infer(active: ActivePipeline, body: bytes, content_type: str, request_id: str) -> Columns:
    """Answer the rows of one body and log them.

    Raises BadInput for a body that does not fit, RuntimeFailed when the model cannot run these rows, Unreachable
    when the log does not take them: no answer may leave then.
    """
    start = time.perf_counter_ns()
    inputs = decode(body, content_type, active.loaded.input)
    if active.loaded.single_row and inputs.rows != 1:
        raise BadInput(
            f"pipeline '{active.name}' takes one row a request (batch = \"single\"): {inputs.rows} were sent"
        )
    parse_ns = time.perf_counter_ns() - start
    result = _result(active, inputs, active.loaded.infer(inputs), parse_ns)
    active.spool.record(result, request_id, bundle=active.manifest)
    return result


def decode(body: bytes, content_type: str, schema: Schema) -> Columns:
    """Read a body as the columns of a schema. Raises WrongMediaType, or BadInput that names row and field.

    The type is matched by substring, as published examples double the header's name; none at all is taken
    from the body itself.
    """
    if not body:
        raise BadInput("the body is empty: expected rows as pandas-records or Arrow")
    given = content_type.lower()
    if "apache.arrow" in given or (not given and body.startswith(_ARROW_MAGIC)):
        from columns.arrow import decode_arrow  # pyarrow is 40 MiB: loaded when somebody sends Arrow

        return decode_arrow(body, schema)
    if "json" in given or (not given and body.lstrip()[:1] in (b"[", b"{")):
        return decode_records(body, schema)
    said = f"'{content_type[:100]}'" if given else "missing, and the body is neither JSON nor Arrow"
    raise WrongMediaType(f"content type {said}: send {RECORDS}, {ARROW_FILE} or {ARROW_STREAM}", field="Content-Type")


def encode(result: Columns, accept: str, separator: str | None) -> tuple[bytes, str]:
    """Make an answer's body and its media type: JSON, or Arrow where `Accept` asks for it."""
    wanted = accept.lower()
    if ARROW_FILE in wanted or ARROW_STREAM in wanted:
        from columns.arrow import encode_arrow

        media_type = ARROW_FILE if ARROW_FILE in wanted else ARROW_STREAM
        return encode_arrow(result, "file" if media_type == ARROW_FILE else "stream"), media_type
    return encode_records(result, separator), JSON


def blank_result(active: ActivePipeline) -> Columns:
    """A result of no rows, to see which columns one has."""
    schema = active.result_schema
    return Columns(schema, {name: np.empty(0) for name in schema.names}, 0)


def _result(active: ActivePipeline, inputs: Columns, outcome: Outcome, parse_ns: int) -> Columns:
    rows, anomalies = inputs.rows, outcome.anomalies
    same_for_all = {
        **active.lasting_columns,
        "time": np.array([time.time_ns() // 1_000_000]),
        "metadata.elapsed": np.array([(parse_ns, *outcome.elapsed_ns)], dtype=np.int64),
    }
    arrays = {name: constant(array, rows) for name, array in same_for_all.items()}
    arrays.update((f"in.{name}", array) for name, array in inputs.arrays.items())
    arrays.update((f"out.{name}", array) for name, array in outcome.outputs.arrays.items())
    arrays.update((f"anomaly.{name}", array) for name, array in anomalies.items())
    arrays["anomaly.count"] = sum(anomalies.values(), np.zeros(rows, dtype=np.uint32)).astype(np.uint32)
    return Columns(active.result_schema, {name: arrays[name] for name in active.result_schema.names}, rows)
