"""One inference from body to logged result, whatever protocol it came by.

Decode, check, run, put the result together, hand it to the spool: only then may an answer be made of it.
The columns of a result, in answers and in the log, are those of docs/agent-http.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from columns.arrow_layout import Layouts
from columns.columns import Columns, constant
from columns.json_value import BYTES_VALUE, VALUE, value_schema
from columns.records import decode_records, encode_records
from columns.schema import Field, Schema
from columns.templates import Templates
from columns.values import object_array
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.stages import Stages
from edge_agent.telemetry.trace_context import TraceColumn
from edgepack.errors import BadInput
from runtimes.pipeline import Outcome

if TYPE_CHECKING:
    from edge_agent.doors.seam import Call

ARROW_FILE = "application/vnd.apache.arrow.file"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
RECORDS = "application/json; format=pandas-records"
JSON = "application/json"

Took = tuple[int, tuple[int, ...], int]  # ns: parse, each step, validations

PACED_BYTES = 64 << 10  # of a body: up to this size a request says how fast a pipeline is

_ARROW_MAGIC = (b"ARROW1", b"\xff\xff\xff\xff")  # IPC file; IPC stream ("Encapsulated message format")


class WrongMediaType(BadInput):
    """The body is of a kind that this door does not read."""


def infer(active: ActivePipeline, call: Call, read: Callable[[Schema], Columns]) -> Columns:
    """Answer the rows of one call: `read` makes them of its body, by the pipeline's input schema.

    They are on their way into the log when this returns (`call.logged`): the answer may leave when they are kept.
    Raises BadInput for a body that does not fit, RuntimeFailed when the model cannot run these rows, Unreachable
    when the log does not take them or the time for this call is over.
    """
    call.pipeline = active.name
    call.check_deadline()
    start = time.perf_counter_ns()
    inputs = read(active.loaded.input)
    if active.loaded.single_row and inputs.rows != 1:
        raise BadInput(
            f"pipeline '{active.name}' takes one row a request (batch = \"single\"): {inputs.rows} were sent"
        )
    parse_ns = time.perf_counter_ns() - start
    short = active.short_way.result(inputs, parse_ns) if active.short_way is not None else None
    if short is None:
        result, outcome, took = _long_way(active, inputs, parse_ns)
        model_ns = sum(took[1])
    else:
        result, model_ns = short
        outcome, took = None, (parse_ns, (model_ns,), 0)
    if len(call.body) <= PACED_BYTES:
        active.pace.note(model_ns)
    active.pace.note_size(model_ns, len(call.body))
    call.check_deadline()
    call.rows = result.rows
    submit(active, call, result, took, outcome)
    return result


def submit(active: ActivePipeline, call: Call, logged: Columns, took: Took, outcome: Outcome | None = None) -> None:
    """Put rows on their way into the log, and note what the stages up to here took (parse, steps, validations; ns).

    Rows of an outcome that shadow models are still to answer are held until they have.
    """
    start = time.perf_counter_ns()
    if call.trace is not None:
        logged = _TRACES.added(logged, call.trace)
    kept = None
    if outcome is not None and outcome.asked:
        whole, logged = partial(_with_shadows, active, logged, outcome), _without_shadows(active, logged)
        if not call.is_busy:
            kept = active.spool.hold(logged, whole, call.request_id, bundle=active.manifest)
    kept = kept or active.spool.submit(logged, call.request_id, bundle=active.manifest)
    if kept is not None:
        call.logged.append(kept)
    end = time.perf_counter_ns()
    call.stages = Stages(active.loaded.step_names, *took, end - start, end)


def _long_way(active: ActivePipeline, inputs: Columns, parse_ns: int) -> tuple[Columns, Outcome, Took]:
    """The result, what it was made of, and the time for it."""
    outcome = active.loaded.infer(inputs)
    result = _result(active, inputs, outcome, parse_ns)
    return result, outcome, (parse_ns, outcome.elapsed_ns, outcome.validations_ns)


def decode(body: bytes | bytearray, content_type: str, schema: Schema) -> Columns:
    """Read a body as the columns of a schema. Raises WrongMediaType, or BadInput that names row and field.

    The type is matched by substring, as published examples double the header's name; none at all is taken
    from the body itself.
    """
    if not body:
        raise BadInput("the body is empty: expected rows as pandas-records or Arrow")
    given = content_type.lower()
    if "apache.arrow" in given or (not given and body.startswith(_ARROW_MAGIC)):
        return _LAYOUTS.decode(body, schema)
    if "json" in given or (not given and body.lstrip()[:1] in (b"[", b"{")):
        return decode_records(body, schema)
    said = f"'{content_type[:100]}'" if given else "missing, and the body is neither JSON nor Arrow"
    raise WrongMediaType(f"content type {said}: send {RECORDS}, {ARROW_FILE} or {ARROW_STREAM}", field="Content-Type")


def encode(result: Columns, accept: str, separator: str | None) -> tuple[bytes, str]:
    """Make an answer's body and its media type: JSON, or Arrow where `Accept` asks for it."""
    wanted = accept.lower()
    if ARROW_FILE in wanted:
        return _FILES.encode(result), ARROW_FILE
    if ARROW_STREAM in wanted:
        return _STREAMS.encode(result), ARROW_STREAM
    return encode_records(result, separator), JSON


def outputs_of(active: ActivePipeline, result: Columns) -> Columns:
    """The outputs of a result, by the pipeline's own names."""
    schema = active.loaded.output
    arrays = {name: result.arrays[f"out.{name}"] for name in schema.names}
    return Columns(value_schema(arrays[VALUE]) if active.loaded.gives_any else schema, arrays, result.rows)


def _decode_arrow(body: bytes | bytearray, schema: Schema) -> Columns:
    from columns.arrow import decode_arrow  # pyarrow is 40 MiB: loaded when somebody sends Arrow

    return decode_arrow(body, schema)


def _encode_file(result: Columns) -> bytes:
    from columns.arrow import encode_arrow

    return encode_arrow(result, "file")


def _encode_stream(result: Columns) -> bytes:
    from columns.arrow import encode_arrow

    return encode_arrow(result, "stream")


_TRACES = TraceColumn()
_LAYOUTS, _FILES, _STREAMS = Layouts(_decode_arrow), Templates(_encode_file), Templates(_encode_stream)


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
    if outcome.models is not None:
        arrays["metadata.last_model"] = active.last_models[outcome.models]
    arrays["anomaly.count"] = sum(anomalies.values(), np.zeros(rows, dtype=np.uint32)).astype(np.uint32)
    schema = active.result_schema
    given, answered = (each.fields[:1] == BYTES_VALUE.fields for each in (inputs.schema, outcome.outputs.schema))
    if given or answered:
        schema = _with_bytes(schema, given, answered)
    return Columns(schema, {name: arrays[name] for name in schema.names}, rows)


@lru_cache(maxsize=64)
def _with_bytes(schema: Schema, given: bool, answered: bool) -> Schema:
    """The columns of a result of steps without schema, where bytes went in or came out."""
    binary = {f"in.{VALUE}": given, f"out.{VALUE}": answered}
    kind = BYTES_VALUE[VALUE].type
    return Schema(tuple(Field(each.name, kind) if binary.get(each.name) else each for each in schema))


def _with_shadows(active: ActivePipeline, logged: Columns, outcome: Outcome) -> Columns:
    """The rows as they are logged, after shadow models were asked: with their answers, which no client sees."""
    said = active.loaded.shadows(outcome)
    renamed = [
        outputs.rename({name: f"out_{model}.{name}" for name in outputs.schema.names})
        for model, outputs in said.items()
    ]
    whole = _dropping(logged, [name for name in active.loaded.shadow_names if name not in said])
    return whole.merge(*renamed) if renamed else whole


def _without_shadows(active: ActivePipeline, logged: Columns) -> Columns:
    return _dropping(logged, active.loaded.shadow_names)


def _dropping(logged: Columns, names: Sequence[str]) -> Columns:
    """The rows with these shadow models as left out."""
    if not names:
        return logged
    dropped = constant(object_array([[f"out_{name}" for name in names]]), logged.rows)
    return Columns(logged.schema, {**logged.arrays, "metadata.dropped": dropped}, logged.rows)
