"""`OnnxRuntime`: ONNX models in onnxruntime. The one module that imports it, and only when a model is loaded.

How rows meet tensors, decided for each input by comparing ranks with the step's types:

- the model's rank is one more than a row's: rows are the tensor's first axis; all run at once if it is
  free, one by one if it is fixed to 1;
- the model's rank is a row's rank: the first axis is a fixed size, the whole tensor is one row; rows run
  one by one, also where this is so of an output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arch.providers import CPU, Choice
from bundle.pipeline import StepSpec
from columns.schema import Schema
from columns.types import ListOf, Type
from columns.values import object_array
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed
from runtimes.cpus import engine_threads
from runtimes.onnx_bound import BoundRun
from runtimes.onnx_tensors import has_bfloat16, run_values, tensor_field
from runtimes.protocol import TensorField
from runtimes.providers import open_session

_BIG_REQUEST_BYTES = 4 << 20  # from here on the arena shrinks after the run: one big request must not stay in memory
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_DTYPES = {
    "tensor(string)": np.dtype(object),
    "tensor(bool)": np.dtype(bool),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": np.dtype(np.float32),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

Arrays = Mapping[str, np.ndarray]


class OnnxRuntime:
    """One ONNX model, loaded."""

    def __init__(self, engine: Any, session: Any, step: StepSpec, providers: Choice | None = None) -> None:
        self._engine, self._session, self._step = engine, session, step
        self.providers = providers or Choice()
        self._input, self._output = Schema.parse(step.input), Schema.parse(step.output)
        self._nodes = _nodes_by_field(session, self._input, step)
        self._names = tuple((name, node.name) for name, node in self._nodes.items())
        self._outputs = _known_outputs(session, self._output, step)
        self._ranks = {field.name: _row_rank(field.type) for field in (*self._input.fields, *self._output.fields)}
        self._whole = {name for name, node in self._nodes.items() if len(node.shape) == self._ranks[name]}
        self._has_bfloat16 = has_bfloat16([*session.get_inputs(), *session.get_outputs()])
        self.tensor_inputs = tuple(tensor_field(n, node, self._ranks[n]) for n, node in self._nodes.items())
        self.tensor_outputs = _known_tensors(session, self._ranks, self._outputs)
        fixed = bool(self._whole) or any(node.shape[0] == 1 for node in self._nodes.values())
        gives_whole = any(
            each.shape is not None and len(each.shape) == self._ranks[each.name] for each in self.tensor_outputs
        )
        self._one_by_one = fixed or gives_whole or step.batch == "single"

    @classmethod
    def load(cls, path: Path, step: StepSpec) -> OnnxRuntime:
        """Load a model file. Raises BadInput without onnxruntime, RuntimeFailed when it refuses the file."""
        engine = _import_engine()
        try:
            session, providers = open_session(engine, path, _session_options(engine))
        except Exception as error:  # onnxruntime's errors have no other root
            raise RuntimeFailed(
                f"model '{step.name}' does not load in onnxruntime {engine.__version__}: {_plain(error)}"
            ) from error
        return cls(engine, session, step, providers)

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
        tensors = {name: _tensor(arrays[name], self._ranks[name], node.type) for name, node in self._nodes.items()}
        if rows == 1 or not (self._one_by_one or any(tensor is None for tensor in tensors.values())):
            return self._run(tensors, rows)
        single = [self.infer({name: arrays[name][row : row + 1] for name in tensors}, 1) for row in range(rows)]
        return {name: _joined([each[name] for each in single]) for name in self._outputs}

    def infer_tensors(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """Run the model once over its own tensors; see `TensorRuntime.infer_tensors`."""
        results = self._ask({named: tensors[name] for name, named in self._names})
        return dict(zip(self._outputs, results, strict=True))

    def bind(self, tensors: Arrays) -> BoundRun | None:
        """See `BindableRuntime.bind`."""
        if self._has_bfloat16 or self.providers.used != (CPU,) or not BoundRun.suits(tensors):
            return None
        given = self.infer_tensors(tensors)
        if not BoundRun.suits(given):
            return None
        bound = BoundRun(self._session, {named: tensors[name] for name, named in self._names}, given)
        again = bound([np.ascontiguousarray(tensors[name]).tobytes() for name, _ in self._names])
        return bound if again == [np.ascontiguousarray(array).tobytes() for array in given.values()] else None

    def close(self) -> None:
        """Let go of the session."""
        self._session = None

    def _run(self, tensors: Mapping[str, np.ndarray | None], rows: int) -> dict[str, np.ndarray]:
        feeds = {}
        for name, tensor in tensors.items():
            if tensor is None:
                raise BadInput(f"field '{name}': its lists are not equally long, the model takes a tensor", field=name)
            feeds[self._nodes[name].name] = tensor[0, ...] if name in self._whole else tensor
        results = self._ask(feeds)
        return {name: self._rows_of(name, result, rows) for name, result in zip(self._outputs, results, strict=True)}

    def _ask(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        options = self._run_options(feeds)
        try:
            if self._has_bfloat16:
                return run_values(self._engine, self._session, self._outputs, feeds, options)
            found: list[np.ndarray] = self._session.run(self._outputs, feeds, options)
        except Exception as error:  # as above
            raise self._explained(error) from error
        return found

    def _run_options(self, feeds: Mapping[str, np.ndarray]) -> Any:
        size = 0
        for feed in feeds.values():
            size += feed.nbytes
        if size < _BIG_REQUEST_BYTES:
            return None
        options = self._engine.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def _explained(self, error: Exception) -> EdgepackError:
        """An argument that does not fit is the caller's fault, all else the engine's."""
        message = f"model '{self._step.name}': {_plain(error)}"
        if type(error).__name__ != "InvalidArgument":
            return RuntimeFailed(message)
        names = (name for name, node in self._nodes.items() if f"input: {node.name} " in message)
        return BadInput(message, field=next(names, None))

    def _rows_of(self, name: str, result: np.ndarray, rows: int) -> np.ndarray:
        """Give a result the rows as its first axis."""
        rank = self._ranks[name]
        if rows == 1 and result.ndim == rank:
            result = result[np.newaxis]
        if result.ndim != rank + 1 or len(result) != rows:
            raise RuntimeFailed(
                f"model '{self._step.name}' gave '{name}' with shape {result.shape} for {rows} rows: "
                f"expected {rows} times {self._output[name].type}"
            )
        return object_array(result.tolist()) if result.dtype == object and rank else result


def _import_engine() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BadInput("onnxruntime is not installed: pip install 'edgepack[agent]'") from error
    onnxruntime.set_default_logger_severity(4)
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _session_options(engine: Any) -> Any:
    options = engine.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = engine_threads(), 1
    options.execution_mode = engine.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what goes wrong is raised; a line on stderr as well would reach the user twice
    # spinning doubles the CPU and halves the speed on a busy or pinned machine
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.use_device_allocator_for_initializers", "1"
    )  # weights outside the arena: no rounding up
    return options


def _nodes_by_field(session: Any, schema: Schema, step: StepSpec) -> dict[str, Any]:
    """The model's inputs by the names that users give them: `tensor_fields`, else their own."""
    nodes = session.get_inputs()
    names = step.tensor_fields or [node.name for node in nodes]
    if len(names) != len(nodes) or set(names) != set(schema.names):
        found = ", ".join(f"'{node.name}'" for node in nodes)
        raise RuntimeFailed(f"model '{step.name}' has the inputs {found}: the bundle says {schema.listing}")
    fields = dict(zip(names, nodes, strict=True))
    for name, node in fields.items():
        if len(node.shape) - _row_rank(schema[name].type) not in (0, 1):
            raise RuntimeFailed(
                f"model '{step.name}' takes '{name}' with shape {node.shape}: rows of {schema[name].type} do not fit it"
            )
    return fields


def _known_outputs(session: Any, schema: Schema, step: StepSpec) -> list[str]:
    found = [node.name for node in session.get_outputs()]
    for name in schema.names:
        if name not in found:
            raise RuntimeFailed(f"model '{step.name}' has no output '{name}': it has {', '.join(found)}")
    return list(schema.names)


def _known_tensors(session: Any, ranks: Mapping[str, int], names: list[str]) -> tuple[TensorField, ...]:
    nodes = {node.name: node for node in session.get_outputs()}
    return tuple(tensor_field(name, nodes[name], ranks[name]) for name in names)


def _row_rank(kind: Type) -> int:
    return 1 + _row_rank(kind.item) if isinstance(kind, ListOf) else 0


def _tensor(array: np.ndarray, rank: int, element: str) -> np.ndarray | None:
    """The rows of a column as one tensor, or None where the lists in them differ in length."""
    if array.dtype != object:
        return array
    try:
        tensor = np.array(array.tolist(), dtype=_DTYPES[element])
    except ValueError:
        return None
    return tensor if tensor.ndim == rank + 1 else None


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    if len({part.shape for part in parts}) == 1:
        return np.concatenate(parts)
    return object_array([part[0].tolist() for part in parts])


def _plain(error: Exception) -> str:
    """An error of onnxruntime in one line, without its code in front."""
    text = _CODE.sub("", " ".join(str(error).split()))
    return text[:300] or type(error).__name__
