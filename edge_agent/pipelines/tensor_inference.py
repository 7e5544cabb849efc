"""One inference by the tensors of a single native step, rows or not: what the Open Inference Protocol asks for.

The engine gets the tensors as they came. The log gets one row: `in.<field>` and `out.<field>` flat, their shapes in
`metadata.shapes` (JSON text). Validations look at rows: where the tensors are rows, the logged row has an anomaly if
any of them has; where they are not, it names its validations in `metadata.dropped`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import orjson

from columns.columns import Columns
from columns.oip_columns import fitted, texts
from columns.oip_tensors import DTYPES, Tensor
from columns.schema import Schema
from columns.types import rank
from columns.values import object_array
from edge_agent.doors.seam import Call
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.inference import PACED_BYTES, submit
from edge_agent.pipelines.stages import Stages
from edgepack.errors import BadInput
from runtimes.protocol import TensorField, TensorRuntime

Arrays = Mapping[str, np.ndarray]


def infer_tensors(
    active: ActivePipeline, engine: TensorRuntime, call: Call, tensors: Mapping[str, Tensor], parse_ns: int
) -> list[Tensor]:
    """Ask the engine and log one row: see `edge_agent.pipelines.inference.infer`, whose rules hold here as well."""
    start = time.perf_counter_ns()
    inputs = checked(active, engine, tensors)
    asked = time.perf_counter_ns()
    outputs = engine.infer_tensors(inputs)
    model_ns = time.perf_counter_ns() - asked
    if len(call.body) <= PACED_BYTES:
        active.pace.note(model_ns)
    active.pace.note_size(model_ns, len(call.body))
    call.check_deadline()
    call.rows = _rows(active.loaded.input, inputs) or 1
    parsed_ns = parse_ns + asked - start
    if active.loaded.spec.log.durability != "off":
        judged = time.perf_counter_ns()
        row = row_of(active, inputs, outputs, (parsed_ns, model_ns))
        judged = time.perf_counter_ns() - judged if active.loaded.spec.validations else 0
        submit(active, call, row, (parsed_ns, (model_ns,), judged))
    else:
        call.stages = Stages(active.loaded.step_names, parsed_ns, (model_ns,), 0, 0, time.perf_counter_ns())
    return [Tensor(field.name, field.datatype, np.asarray(outputs[field.name])) for field in engine.tensor_outputs]


def checked(active: ActivePipeline, engine: TensorRuntime, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The tensors as the engine takes them. Raises BadInput that names the one that does not fit."""
    active.loaded.input.check_names(tensors, "the request")
    found = {field.name: _fitting(field, tensors[field.name]) for field in engine.tensor_inputs}
    if active.loaded.single_row and _rows(active.loaded.input, found) not in (1, None):
        raise BadInput(f"pipeline '{active.name}' takes one row a request (batch = \"single\")")
    return found


def is_row_by_row(engine: TensorRuntime, tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are several rows for a model that takes one at a time: they go the way of rows then."""
    fixed = [field for field in engine.tensor_inputs if field.shape and field.shape[0] == 1 and field.name in tensors]
    return any(tensors[field.name].array.ndim and len(tensors[field.name].array) > 1 for field in fixed)


def _fitting(field: TensorField, tensor: Tensor) -> np.ndarray:
    shape = tensor.array.shape
    if field.shape is not None and (field.shape or not shape):
        fits = len(shape) == len(field.shape) and all(
            want in (None, size) for want, size in zip(field.shape, shape, strict=True)
        )
        if not fits:
            expected = [-1 if size is None else size for size in field.shape]
            raise BadInput(f"input '{field.name}' has shape {list(shape)}, expected {expected}", field=field.name)
    if "BF16" in {field.datatype} - {tensor.datatype}:
        raise BadInput(f"input '{field.name}' is {tensor.datatype}, expected BF16", field=field.name)
    if field.datatype == tensor.datatype == "BYTES":
        return texts(field.name, tensor.array)
    return fitted(tensor, DTYPES[field.datatype])


def row_of(active: ActivePipeline, inputs: Arrays, outputs: Arrays, elapsed_ns: tuple[int, ...]) -> Columns:
    """What is logged."""
    sides = {**{f"in.{n}": a for n, a in inputs.items()}, **{f"out.{n}": a for n, a in outputs.items()}}
    shapes = tuple((name, np.shape(array)) for name, array in sides.items())
    arrays = {
        **active.lasting_columns,
        **{name: _flat(array) for name, array in sides.items()},
        **_anomalies(active, inputs, outputs),
        "time": np.array([time.time_ns() // 1_000_000]),
        "metadata.elapsed": np.array([elapsed_ns], dtype=np.int64),
        "metadata.shapes": _said(shapes),
    }
    schema = active.flat_schema
    return Columns(schema, {name: arrays[name] for name in schema.names}, 1)


@lru_cache(maxsize=1024)
def _said(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> np.ndarray:
    """The shapes as a column; the same array for the same shapes, which is what makes its encoding quick."""
    return object_array([orjson.dumps(dict(shapes)).decode()])


def _flat(array: np.ndarray) -> np.ndarray:
    flat = np.asarray(array).reshape(-1)
    return object_array([flat.tolist()]) if flat.dtype == object else flat[np.newaxis]


def _anomalies(active: ActivePipeline, inputs: Arrays, outputs: Arrays) -> dict[str, np.ndarray]:
    names = list(active.loaded.spec.validations)
    if not names:
        return {"anomaly.count": np.zeros(1, dtype=np.uint32)}
    rows = _rows(active.loaded.input, inputs)
    if rows is None or _rows(active.loaded.output, outputs) != rows:
        found = {name: False for name in names}
        dropped = {"metadata.dropped": object_array([[f"anomaly.{name}" for name in names]])}
    else:
        sides = [_as_rows(schema, arrays, rows) for schema, arrays in _sides(active, inputs, outputs)]
        found = {name: bool(rows.any()) for name, rows in active.loaded.anomalies(*sides).items()}
        dropped = {}
    count = np.array([sum(found.values())], dtype=np.uint32)
    return {"anomaly.count": count, **{f"anomaly.{n}": np.array([v]) for n, v in found.items()}, **dropped}


def _sides(active: ActivePipeline, inputs: Arrays, outputs: Arrays) -> tuple[tuple[Schema, Arrays], ...]:
    return (active.loaded.input, inputs), (active.loaded.output, outputs)


def _rows(schema: Schema, arrays: Arrays) -> int | None:
    """How many rows these tensors are; None where they are none."""
    found = set()
    for field in schema:
        extra = arrays[field.name].ndim - rank(field.type)
        found.add(len(arrays[field.name]) if extra == 1 else 1 if extra == 0 else None)
    return found.pop() if len(found) == 1 else None


def _as_rows(schema: Schema, arrays: Arrays, rows: int) -> Columns:
    whole = {}
    for field in schema:
        array = np.asarray(arrays[field.name])
        array = array[np.newaxis] if array.ndim == rank(field.type) else array
        whole[field.name] = object_array(array.tolist()) if array.dtype == object else array
    return Columns(schema, whole, rows)
