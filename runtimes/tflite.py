"""`TfliteRuntime`: TFLite models in LiteRT (ai-edge-litert), or in tflite-runtime where a target has that one. The one
module that imports them, and only when a model is loaded.

An interpreter holds one request and the shape of its tensors, and changing the shape costs up to milliseconds: a few
are kept, and a request takes one that has its shape already where there is one. All of them map one file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
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

_ENGINES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
_BIG_REQUEST_BYTES = 4 << 20  # an interpreter that held more is given up: one big request must not stay in memory
_ONLY_SIGNATURE = "serving_default"

Arrays = Mapping[str, np.ndarray]
Shapes = tuple[tuple[int, ...], ...]


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

    providers = Choice()

    def __init__(self, engine: Any, path: Path, step: StepSpec) -> None:
        self._engine, self._path, self._step = engine, path, step
        self._input, self._output = Schema.parse(step.input), Schema.parse(step.output)
        self._threads, self._most_idle = engine_threads(), usable_cpus()  # asked once: it reads the kernel's files
        first = self._made()
        self._inputs = _places(first, step, self._input, first.get_input_details(), "inputs")
        self._outputs = _places(first, step, self._output, first.get_output_details(), "outputs")
        self._idle: list[tuple[Shapes, Any]] = [(self._shapes_of_one(), first)]
        self._lock = threading.Lock()
        self.tensor_inputs = tuple(_tensor_field(place) for place in self._inputs)
        self.tensor_outputs = tuple(_tensor_field(place) for place in self._outputs)
        places = (*self._inputs, *self._outputs)
        is_free = all(not place.is_whole and place.shape[0] is None for place in places)
        self._one_by_one = not is_free or step.batch == "single"

    @classmethod
    def load(cls, path: Path, step: StepSpec) -> TfliteRuntime:
        """Load a model file. Raises BadInput without an engine, RuntimeFailed when it refuses the file."""
        return cls(_import_engine(), path, step)

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
        if rows == 1 or not self._one_by_one:
            return self._rows(arrays, rows)
        parts = [self._rows({name: array[row : row + 1] for name, array in arrays.items()}, 1) for row in range(rows)]
        return {place.name: np.concatenate([part[place.name] for part in parts]) for place in self._outputs}

    def infer_tensors(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """Run the model once over its own tensors; see `TensorRuntime.infer_tensors`."""
        return self._run({place.name: _numbers(place, tensors[place.name]) for place in self._inputs})

    def close(self) -> None:
        """Let go of the interpreters."""
        self._idle.clear()

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

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes = tuple(feeds[place.name].shape for place in self._inputs)
        size = sum(feed.nbytes for feed in feeds.values())
        for place, shape in zip(self._inputs, shapes, strict=True):
            _check_shape(place, shape)
        with self._interpreter(shapes, keep=size < _BIG_REQUEST_BYTES) as interpreter:
            try:
                for place in self._inputs:
                    interpreter.set_tensor(place.index, place.tensor(feeds[place.name]))
                interpreter.invoke()
                return {each.name: each.array(interpreter.get_tensor(each.index)) for each in self._outputs}
            except (RuntimeError, ValueError) as error:
                raise RuntimeFailed(f"model '{self._step.name}': {_plain(error)}") from error

    @contextmanager
    def _interpreter(self, shapes: Shapes, *, keep: bool) -> Iterator[Any]:
        """An interpreter of these shapes, for this request alone."""
        interpreter = self._taken(shapes)
        yield interpreter
        with self._lock:  # one that failed is not given back: nobody knows what it holds
            if keep and len(self._idle) < self._most_idle:
                self._idle.append((shapes, interpreter))

    def _taken(self, shapes: Shapes) -> Any:
        with self._lock:
            fitting = next((at for at, (known, _) in enumerate(self._idle) if known == shapes), None)
            known, interpreter = self._idle.pop(fitting or 0) if self._idle else ((), None)
        if interpreter is None:
            known, interpreter = self._shapes_of_one(), self._made()
        if known != shapes:
            self._resize(interpreter, shapes)
        return interpreter

    def _resize(self, interpreter: Any, shapes: Shapes) -> None:
        try:
            for place, shape in zip(self._inputs, shapes, strict=True):
                interpreter.resize_tensor_input(place.index, shape, strict=None in place.shape)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RuntimeFailed(f"model '{self._step.name}' does not take {shapes}: {_plain(error)}") from error

    def _made(self) -> Any:
        """An interpreter with the shapes that the file has."""
        try:
            made = self._engine(model_path=str(self._path), num_threads=self._threads)
            made.allocate_tensors()
        except (RuntimeError, ValueError, OSError) as error:
            raise RuntimeFailed(f"model '{self._step.name}' does not load in TFLite: {_plain(error)}") from error
        return made

    def _shapes_of_one(self) -> Shapes:
        """The shapes of a fresh interpreter: an axis that is free has size 1 there."""
        return tuple(tuple(1 if size is None else size for size in place.shape) for place in self._inputs)


def _import_engine() -> Any:
    for name in _ENGINES:
        try:
            return import_module(name).Interpreter
        except ImportError:
            continue
    raise BadInput("no TFLite runtime is installed: pip install 'edgepack[tflite]'")


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


def _plain(error: Exception) -> str:
    """An error of the engine in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
