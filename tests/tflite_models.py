"""TFLite files made anew from arguments, by way of the schema classes that ai-edge-litert carries: no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

KINDS = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "float64": schema.TensorType.FLOAT64,
    "int16": schema.TensorType.INT16,
    "bool": schema.TensorType.BOOL,
    "string": schema.TensorType.STRING,
    "int4": schema.TensorType.INT4,
    "complex64": schema.TensorType.COMPLEX64,
}
Scale = tuple[float, int]
DENSE = schema.BuiltinOperator.FULLY_CONNECTED
NONE = schema.ActivationFunctionType.NONE
RELU = schema.ActivationFunctionType.RELU
FREE = -1  # an axis without a fixed size


@dataclass
class Graph:
    """Tensors and operators as they are added; `file` writes them."""

    def __post_init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version, self._model.description = 3, "made for tests"
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._model.subgraphs = [self._graph]

    def tensor(
        self, name: str, kind: str, shape: Sequence[int], data: np.ndarray[Any, Any] | None = None,
        scale: Scale | None = None,
    ) -> int:  # fmt: skip
        """Add a tensor; -1 is a free axis. Returns its number."""
        made = schema.TensorT()
        made.name, made.type = name, KINDS[kind]
        made.shape = [1 if size == FREE else size for size in shape]
        made.shapeSignature = list(shape) if FREE in shape else None
        made.buffer = self._buffer(data)
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale[0]], [scale[1]]
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def dense(self, inputs: Sequence[int], output: int, activation: int = NONE, version: int = 1) -> None:
        """output = activation(input · weightsᵀ + bias)."""
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = activation
        self.operator(DENSE, inputs, [output], schema.BuiltinOptions.FullyConnectedOptions, options, version=version)

    def operator(
        self, code: int, inputs: Sequence[int], outputs: Sequence[int], kind: int = 0, options: Any = None,
        custom: str | None = None, version: int = 1,
    ) -> None:  # fmt: skip
        """Add an operator of a code of its own."""
        known = schema.OperatorCodeT()
        known.builtinCode, known.deprecatedBuiltinCode, known.version = code, min(code, 127), version
        known.customCode = custom
        self._model.operatorCodes.append(known)
        made = schema.OperatorT()
        made.opcodeIndex = len(self._model.operatorCodes) - 1
        made.inputs, made.outputs = list(inputs), list(outputs)
        made.builtinOptionsType, made.builtinOptions = kind, options
        self._graph.operators.append(made)

    def signature(self, key: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Name inputs and outputs for callers."""
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = key, 0
        made.inputs, made.outputs = _named(inputs), _named(outputs)
        self._model.signatureDefs = [*(self._model.signatureDefs or []), made]

    def file(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The whole file."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _buffer(self, data: np.ndarray[Any, Any] | None) -> int:
        if data is None:
            return 0
        made = schema.BufferT()
        made.data = np.frombuffer(data.tobytes(), dtype=np.uint8)
        self._model.buffers.append(made)
        return len(self._model.buffers) - 1


def _named(numbers: Mapping[str, int]) -> list[Any]:
    made = []
    for name, number in numbers.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, number
        made.append(entry)
    return made


def dense(
    weights: np.ndarray[Any, Any], *, rows: int = FREE, names: tuple[str, str] | None = ("x", "y"),
    kind: str = "float32", version: int = 1,
) -> bytes:  # fmt: skip
    """y = x · weights, of float32, with a signature unless `names` is None."""
    graph = Graph()
    width, units = weights.shape
    x = graph.tensor("serving_default_x:0", kind, [rows, width])
    w = graph.tensor("w", "float32", [units, width], np.ascontiguousarray(weights.T.astype(np.float32)))
    y = graph.tensor("StatefulPartitionedCall:0", kind, [rows, units])
    graph.dense([x, w, -1], y, version=version)
    if names is not None:
        graph.signature("serving_default", {names[0]: x}, {names[1]: y})
    return graph.file([x], [y])


def quantized(weights: np.ndarray[Any, Any], x_scale: Scale, w_scale: float, y_scale: Scale, rows: int = FREE) -> bytes:
    """The same in int8; `weights` are int8 already. y_q = round(x_q · w_q · scales) + zero point."""
    graph = Graph()
    width, units = weights.shape
    x = graph.tensor("x", "int8", [rows, width], scale=x_scale)
    w = graph.tensor("w", "int8", [units, width], np.ascontiguousarray(weights.T.astype(np.int8)), (w_scale, 0))
    b = graph.tensor("b", "int32", [units], np.zeros(units, np.int32), (x_scale[0] * w_scale, 0))
    y = graph.tensor("y", "int8", [rows, units], scale=y_scale)
    graph.dense([x, w, b], y)
    graph.signature("serving_default", {"x": x}, {"y": y})
    return graph.file([x], [y])


def two_ways(rows: int = FREE) -> bytes:
    """Two inputs, two outputs: sum and product."""
    graph = Graph()
    a, b = (graph.tensor(name, "float32", [rows, 3]) for name in ("a", "b"))
    total, product = (graph.tensor(name, "float32", [rows, 3]) for name in ("total", "product"))
    graph.operator(schema.BuiltinOperator.ADD, [a, b], [total], schema.BuiltinOptions.AddOptions, schema.AddOptionsT())
    graph.operator(
        schema.BuiltinOperator.MUL, [a, b], [product], schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    )
    graph.signature("serving_default", {"b": b, "a": a}, {"product": product, "total": total})
    return graph.file([a, b], [total, product])


def minus(*, has_signature: bool) -> bytes:
    """Two inputs of one type, b first, and b - a: what is swapped shows."""
    graph = Graph()
    b, a = (graph.tensor(f"serving_default_{name}:0", "float32", [FREE, 3]) for name in ("b", "a"))
    difference = graph.tensor("difference", "float32", [FREE, 3])
    kind = schema.BuiltinOptions.SubOptions
    graph.operator(schema.BuiltinOperator.SUB, [b, a], [difference], kind, schema.SubOptionsT())
    if has_signature:
        graph.signature("serving_default", {"a": a, "b": b}, {"difference": difference})
    return graph.file([b, a], [difference])


def flex(name: str = "FlexErf") -> bytes:
    """A graph with an operator that only TensorFlow itself has."""
    graph = Graph()
    x, y = graph.tensor("x", "float32", [FREE, 2]), graph.tensor("y", "float32", [FREE, 2])
    graph.operator(schema.BuiltinOperator.CUSTOM, [x], [y], custom=name)
    return graph.file([x], [y])


def alike() -> bytes:
    """Two inputs of one name, without a signature; their sum."""
    graph = Graph()
    a, b = (graph.tensor("x", "float32", [FREE, 3]) for _ in range(2))
    total = graph.tensor("y", "float32", [FREE, 3])
    graph.operator(schema.BuiltinOperator.ADD, [a, b], [total], schema.BuiltinOptions.AddOptions, schema.AddOptionsT())
    return graph.file([a, b], [total])


def convolutions(size: int = 32, channels: int = 32, layers: int = 6) -> bytes:
    """Pictures of three colours through layers of 3x3 convolutions with ReLU."""
    graph, rng = Graph(), np.random.default_rng(0)
    picture = before = graph.tensor("x", "float32", [FREE, size, size, 3])
    given = 3
    for layer in range(layers):
        weights = 0.1 * rng.normal(size=(channels, 3, 3, given)).astype(np.float32)
        w = graph.tensor(f"w{layer}", "float32", weights.shape, weights)
        b = graph.tensor(f"b{layer}", "float32", [channels], np.zeros(channels, np.float32))
        after = graph.tensor(f"y{layer}", "float32", [FREE, size, size, channels])
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
        options.padding, options.fusedActivationFunction = schema.Padding.SAME, RELU
        kind = schema.BuiltinOptions.Conv2DOptions
        graph.operator(schema.BuiltinOperator.CONV_2D, [before, w, b], [after], kind, options)
        before, given = after, channels
    graph.signature("serving_default", {"x": picture}, {"y": before})
    return graph.file([picture], [before])
