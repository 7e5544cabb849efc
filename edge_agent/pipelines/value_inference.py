"""One value, JSON or bytes, to a step that takes such beside rows of its fields, and back: what ADS's `/predict` is.

The log gets one row: `in.json` and `out.json`. Validations look at rows: the row names them in `metadata.dropped`.
"""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np

from columns.columns import Columns
from columns.json_value import VALUE, value_schema
from columns.schema import Field, Schema
from columns.values import object_array
from edge_agent.doors.seam import Call
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.inference import PACED_BYTES, submit
from runtimes.protocol import ValueRuntime


def infer_value(active: ActivePipeline, step: ValueRuntime, call: Call, value: Columns, parse_ns: int) -> Columns:
    """Ask the step and log one row: see `edge_agent.pipelines.inference.infer`, whose rules hold here as well."""
    call.check_deadline()
    asked = time.perf_counter_ns()
    answer = step.infer_value(value)
    model_ns = time.perf_counter_ns() - asked
    if len(call.body) <= PACED_BYTES:
        active.pace.note(model_ns)
    active.pace.note_size(model_ns, len(call.body))
    call.check_deadline()
    call.rows = 1
    submit(active, call, _logged(active, value, answer, (parse_ns, model_ns)), (parse_ns, (model_ns,), 0))
    return answer


def _logged(active: ActivePipeline, value: Columns, answer: Columns, elapsed_ns: tuple[int, ...]) -> Columns:
    names = list(active.loaded.spec.validations)
    dropped = {"metadata.dropped": object_array([[f"anomaly.{name}" for name in names]])} if names else {}
    arrays = {
        **active.lasting_columns,
        "time": np.array([time.time_ns() // 1_000_000]),
        f"in.{VALUE}": value.arrays[VALUE],
        f"out.{VALUE}": answer.arrays[VALUE],
        "anomaly.count": np.zeros(1, dtype=np.uint32),
        **{f"anomaly.{name}": np.zeros(1, dtype=bool) for name in names},
        "metadata.elapsed": np.array([elapsed_ns], dtype=np.int64),
        **dropped,
    }
    sides = value_schema(value.arrays[VALUE]), value_schema(answer.arrays[VALUE])
    schema = _schema_of(active.result_schema, *sides)
    return Columns(schema, {name: arrays[name] for name in schema.names}, 1)


@lru_cache(maxsize=64)
def _schema_of(rows: Schema, given: Schema, answered: Schema) -> Schema:
    """The columns of a logged value, in the order of those of a logged row."""
    kept = [field for field in rows if not field.name.startswith(("in.", "out."))]
    sides = [Field(f"in.{VALUE}", given[VALUE].type), Field(f"out.{VALUE}", answered[VALUE].type)]
    return Schema((kept[0], *sides, *kept[1:]))
