"""`TfliteRuntime`: TFLite models in the engine that is here (`runtimes.tflite_engine`).

Rows of a large request run in pieces, so that what they take in the layers between stays within some megabytes: that is
as quick, and no request makes an interpreter large for good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arch.providers import Choice
from bundle.pipeline import StepSpec
from columns.oip_tensors import datatype_of
from columns.schema import Schema
from columns.types import ListOf, Type
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.cpus import engine_threads, usable_cpus
from runtimes.protocol import TensorField
from runtimes.tflite_engine import Engine, plain
from runtimes.tflite_interpreters import Interpreters, Shapes

_PIECE_BYTES = 4 << 20  # of all layers' values for the rows of one piece
_KEPT_SHAPES = 4  # shapes that have an interpreter of their own, of a model that is not large
_LARGE_MODEL_BYTES = 8 << 20  # each interpreter of it has the weights once more, as XNNPACK wants them
_ONLY_SIGNATURE = "serving_default"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Place:
    """Where a field lies in an interpreter. `scale` is set where numbers stand for the model's integers."""

    name: str
    index: int
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    rank: int  # of one row of the field
    scale: tuple[float, int] | None

    @property
    def is_whole(self) -> bool:
        """Whether the whole tensor is one row."""
        return len(self.shape) == self.rank

    @property
    def is_free(self) -> bool:
        """Whether any number of rows may be given at once."""
        return not self.is_whole and self.shape[0] is None

    @property
    def nothing(self) -> np.ndarray:
        """The field of no rows."""
        sizes = self.shape[len(self.shape) - self.rank :]
        return np.zeros((0, *(size or 0 for size in sizes)), np.float32 if self.scale else self.dtype)

    def tensor(self, array: np.ndarray) -> np.ndarray:
        """What the model takes for an array of the field."""
        if self.scale is None:
            return np.ascontiguousarray(array, dtype=self.dtype)
        scale, zero = self.scale
        limits = np.iinfo(self.dtype)
        levels = np.nan_to_num(np.rint(array / np.float32(scale)) + zero, nan=float(zero))
        found: np.ndarray = np.clip(levels, limits.min, limits.max).astype(self.dtype)
        return found

    def array(self, tensor: np.ndarray) -> np.ndarray:
        """What the field has for a tensor of the model."""
        if self.scale is None:
            return tensor
        scale, zero = self.scale
        found: np.ndarray = (tensor.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return found


class TfliteRuntime:
    """One TFLite model, loaded."""

    def __init__(self, engine: Engine, path: Path, step: StepSpec) -> None:
        self._engine, self._path, self._step = engine, path, step
        self._input, self._output = Schema.parse(step.input), Schema.parse(step.output)
        self._threads, cpus = engine_threads(), usable_cpus()  # asked once: it reads the kernel's files
        first = self._made()
        self._inputs = _places(first, step, self._input, first.get_input_details(), "inputs")
        self._outputs = _places(first, step, self._output, first.get_output_details(), "outputs")
        xnnpack = ", XNNPACK" if engine.uses_xnnpack(first) else ""
        self.providers = Choice(engine=f"{engine.name}{xnnpack}", threads=self._threads)
        self.tensor_inputs = tuple(_tensor_field(place) for place in self._inputs)
        self.tensor_outputs = tuple(_tensor_field(place) for place in self._outputs)
        is_large = path.stat().st_size > _LARGE_MODEL_BYTES
        most = cpus if is_large else max(cpus, _KEPT_SHAPES)
        self.interpreters = Interpreters(self._made, self._resize, self._shapes_of_one(), most)
        self.interpreters.add(first)
        self.rows_at_once = self._rows_of_a_piece(first)

    @classmethod
    def load(cls, path: Path, step: StepSpec) -> TfliteRuntime:
        """Load a model file. Raises BadInput without an engine, RuntimeFailed when it refuses the file."""
        return cls(Engine.here(), path, step)

    @property
    def input(self) -> Schema:
        """The fields it takes."""
        return self._input

    @property
    def output(self) -> Schema:
        """The fields it gives."""
        return self._output

    def infer(self, arrays: Arrays, rows: int) -> dict[str, np.ndarray]:
        """Run the model over all rows; see `Runtime.infer`."""
        most = self.rows_at_once
        if not rows:
            return {place.name: place.nothing for place in self._outputs}
        if rows <= most:
            return self._rows(arrays, rows)
        parts = [
            self._rows({name: array[at : at + most] for name, array in arrays.items()}, min(most, rows - at))
            for at in range(0, rows, most)
        ]
        return {place.name: np.concatenate([part[place.name] for part in parts]) for place in self._outputs}

    def infer_tensors(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """Run the model once over its own tensors; see `TensorRuntime.infer_tensors`."""
        feeds = {place.name: _numbers(place, tensors[place.name]) for place in self._inputs}
        sizes = [feeds[place.name].shape[:1] for place in self._inputs if place.is_free]
        return self._run(feeds, keep=max(sizes, default=()) <= (self.rows_at_once,))

    def close(self) -> None:
        """Let go of the interpreters."""
        self.interpreters.close()

    def _rows(self, arrays: Arrays, rows: int) -> dict[str, np.ndarray]:
        feeds = {}
        for place in self._inputs:
            array = _numbers(place, arrays[place.name])
            feeds[place.name] = array[0] if place.is_whole else array
        found = self._run(feeds)
        return {place.name: self._rows_of(place, found[place.name], rows) for place in self._outputs}

    def _rows_of(self, place: _Place, result: np.ndarray, rows: int) -> np.ndarray:
        """Give a result the rows as its first axis."""
        if rows == 1 and result.ndim == place.rank:
            result = result[np.newaxis]
        if result.ndim != place.rank + 1 or len(result) != rows:
            raise RuntimeFailed(
                f"model '{self._step.name}' gave '{place.name}' with shape {result.shape} for {rows} rows: "
                f"expected {rows} times {self._output[place.name].type}"
            )
        return result

    def _run(self, feeds: Mapping[str, np.ndarray], *, keep: bool = True) -> dict[str, np.ndarray]:
        shapes = tuple(feeds[place.name].shape for place in self._inputs)
        for place, shape in zip(self._inputs, shapes, strict=True):
            _check_shape(place, shape)
        with self.interpreters.of(shapes, keep=keep) as interpreter:
            try:
                for place in self._inputs:
                    interpreter.set_tensor(place.index, place.tensor(feeds[place.name]))
                interpreter.invoke()
                return {each.name: each.array(interpreter.get_tensor(each.index)) for each in self._outputs}
            except (RuntimeError, ValueError) as error:
                raise RuntimeFailed(f"model '{self._step.name}': {plain(error)}") from error

    def _made(self) -> Any:
        return self._engine.open(self._path, self._step.name, self._threads)

    def _resize(self, interpreter: Any, shapes: Shapes) -> None:
        try:
            for place, shape in zip(self._inputs, shapes, strict=True):
                interpreter.resize_tensor_input(place.index, shape, strict=None in place.shape)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RuntimeFailed(f"model '{self._step.name}' does not take {shapes}: {plain(error)}") from error

    def _shapes_of_one(self) -> Shapes:
        """The shapes of a fresh interpreter: an axis that is free has size 1 there."""
        return tuple(tuple(1 if size is None else size for size in place.shape) for place in self._inputs)

    def _rows_of_a_piece(self, interpreter: Any) -> int:
        """How many rows run at once: one where the model or the step says so, else as many as stay within the limit."""
        places = (*self._inputs, *self._outputs)
        if self._step.batch == "single" or not all(place.is_free for place in places):
            return 1
        return max(1, _PIECE_BYTES // max(1, sum(map(_row_bytes, interpreter.get_tensor_details()))))


def _places(
    interpreter: Any, step: StepSpec, schema: Schema, details: list[dict[str, Any]], side: str
) -> tuple[_Place, ...]:
    """The model's inputs or outputs in its own order, by the names that users give them."""
    names = list(step.input if side == "inputs" else step.output)
    named = _signature(interpreter, side)
    own = [named.get(int(each["index"]), "") for each in details]
    order = list(step.tensor_fields) if side == "inputs" and step.tensor_fields else own if all(own) else names
    if len(order) != len(details) or set(order) != set(names):
        raise RuntimeFailed(f"model '{step.name}' has the {side} {', '.join(order)}: the bundle says {schema.listing}")
    return tuple(_place(name, each, schema, step) for name, each in zip(order, details, strict=True))


def _signature(interpreter: Any, side: str) -> dict[int, str]:
    """Names by tensor, from the only signature or TensorFlow's usual one; none where there is no signature."""
    keys = list(interpreter.get_signature_list())
    if not keys:
        return {}
    runner = interpreter.get_signature_runner(_ONLY_SIGNATURE if _ONLY_SIGNATURE in keys else keys[0])
    details = runner.get_input_details() if side == "inputs" else runner.get_output_details()
    return {int(each["index"]): name for name, each in details.items()}


def _place(name: str, detail: Mapping[str, Any], schema: Schema, step: StepSpec) -> _Place:
    signature = detail["shape_signature"]
    sizes = signature if len(signature) else detail["shape"]
    shape = tuple(None if size < 1 else int(size) for size in sizes)
    rank, dtype = _row_rank(schema[name].type), np.dtype(detail["dtype"])
    if len(shape) - rank not in (0, 1):
        raise RuntimeFailed(
            f"model '{step.name}' has '{name}' with shape {list(shape)}: rows of {schema[name].type} do not fit it"
        )
    is_scaled = dtype.kind in "iu" and _scalar(schema[name].type) == "float32"
    scale, zero = detail["quantization"]
    if is_scaled and not scale:
        raise RuntimeFailed(f"model '{step.name}' has integers without a scale in '{name}': the bundle says float32")
    return _Place(name, int(detail["index"]), dtype, shape, rank, (float(scale), int(zero)) if is_scaled else None)


def _numbers(place: _Place, array: np.ndarray) -> np.ndarray:
    """A column as numbers. Lists of unequal length have no tensor."""
    if array.dtype != object:
        return array
    try:
        return np.array(array.tolist(), dtype=np.float32 if place.scale else place.dtype)
    except ValueError as error:
        raise BadInput(
            f"field '{place.name}': its lists are not equally long, the model takes a tensor", field=place.name
        ) from error


def _check_shape(place: _Place, shape: tuple[int, ...]) -> None:
    if len(shape) != len(place.shape) or any(
        size not in (None, given) for size, given in zip(place.shape, shape, strict=True)
    ):
        expected = ", ".join("any" if size is None else str(size) for size in place.shape)
        raise BadInput(f"field '{place.name}' has shape {list(shape)}, the model takes [{expected}]", field=place.name)


def _tensor_field(place: _Place) -> TensorField:
    dtype = np.dtype(np.float32) if place.scale else place.dtype
    return TensorField(place.name, datatype_of(dtype), place.shape)


def _row_rank(kind: Type) -> int:
    return 1 + _row_rank(kind.item) if isinstance(kind, ListOf) else 0


def _scalar(kind: Type) -> str:
    while isinstance(kind, ListOf):
        kind = kind.item
    return str(kind)


def _row_bytes(detail: Mapping[str, Any]) -> int:
    """What a tensor takes for each row: nothing where its first axis is not the rows, as of weights, and for text."""
    signature = detail["shape_signature"]
    if not len(signature) or signature[0] >= 1:
        return 0
    size: int = math.prod(max(1, int(size)) for size in signature) * np.dtype(detail["dtype"]).itemsize
    return size
