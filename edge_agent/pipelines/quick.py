"""The short way through a pipeline of one native step, for rows that are plain tensors: most requests there are.

What `inference` does in general, from columns to a result, costs four times what a small model does. Here everything
that is the same for all requests of a pipeline is worked out once. A pipeline that is not this simple has no short way,
and rows that turn out not to be this simple go the long one; a test holds both to the same results.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from columns.columns import Columns, constant
from columns.types import rank

if TYPE_CHECKING:
    from edge_agent.pipelines.active_pipeline import ActivePipeline
    from runtimes.protocol import TensorRuntime

Array = np.ndarray[Any, np.dtype[Any]]


class ShortWay:
    """The short way of one pipeline."""

    def __init__(self, active: ActivePipeline, engine: TensorRuntime) -> None:
        self._engine, self._schema = engine, active.result_schema
        self._lasting = active.lasting_columns
        self._lasting_row = {**self._lasting, "anomaly.count": np.zeros(1, dtype=np.uint32)}
        self._inputs = tuple((name, f"in.{name}") for name in active.loaded.input.names)
        self._outputs = tuple((field.name, f"out.{field.name}", rank(field.type) + 1) for field in active.loaded.output)

    @classmethod
    def of(cls, active: ActivePipeline) -> ShortWay | None:
        """The short way of a pipeline, if it has one: one step whose tensors are rows, and no validations."""
        loaded = active.loaded
        engine = loaded.tensors
        if engine is None or loaded.single_row or loaded.has_shadows or loaded.spec.validations:
            return None
        ranks = {field.name: rank(field.type) for field in loaded.input}
        for field in engine.tensor_inputs:
            is_rows = field.shape and field.shape[0] is None and len(field.shape) == ranks[field.name] + 1
            if not is_rows or field.datatype in ("BYTES", "BF16"):
                return None
        return cls(active, engine)

    def result(self, inputs: Columns, parse_ns: int) -> tuple[Columns, int] | None:
        """The result of these rows, and the time in the model; None where they have to go the long way."""
        arrays, rows = inputs.arrays, inputs.rows
        found: dict[str, Array] = self._lasting_row.copy() if rows == 1 else self._of_many(rows)
        for name, named in self._inputs:
            array = arrays[name]
            if array.dtype == object:
                return None
            found[named] = array
        start = time.perf_counter_ns()
        answers = self._engine.infer_tensors(arrays)
        model_ns = time.perf_counter_ns() - start
        for name, named, axes in self._outputs:
            array = answers[name]
            if array.dtype == object or array.ndim != axes or array.shape[0] != rows:
                return None
            found[named] = array
        now, elapsed = np.empty(1, np.int64), np.empty((1, 2), np.int64)
        now[0], elapsed[0, 0], elapsed[0, 1] = time.time_ns() // 1_000_000, parse_ns, model_ns
        found["time"] = now if rows == 1 else constant(now, rows)
        found["metadata.elapsed"] = elapsed if rows == 1 else constant(elapsed, rows)
        return Columns(self._schema, found, rows), model_ns

    def _of_many(self, rows: int) -> dict[str, Array]:
        found = {name: constant(array, rows) for name, array in self._lasting.items()}
        found["anomaly.count"] = np.zeros(rows, dtype=np.uint32)
        return found
