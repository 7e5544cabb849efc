"""An ONNX model by its own tensors, rows or not; and bfloat16, for which onnxruntime takes and gives no numpy array."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from columns import bfloat16
from edgepack.errors import BadInput
from runtimes.protocol import TensorField

Arrays = Mapping[str, np.ndarray]

# onnxruntime's name → datatype (columns.oip_tensors)
DATATYPES = {
    "tensor(string)": "BYTES",
    "tensor(bool)": "BOOL",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    **{f"tensor({sign}int{bits})": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_BFLOAT16 = 16  # TensorProto.DataType


def tensor_field(name: str, node: Any, rank: int) -> TensorField:
    """An input or output of a session, by the name of its field; `rank` is that of a row of the field.

    onnxruntime shows the same empty shape for a scalar and for a shape nobody knows: it is a scalar only where the
    field could be one.
    """
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    return TensorField(name, DATATYPES[node.type], None if not shape and rank else shape)


def has_bfloat16(nodes: Sequence[Any]) -> bool:
    """Whether one of a session's inputs or outputs is bfloat16."""
    return any(node.type == "tensor(bfloat16)" for node in nodes)


def run_values(engine: Any, session: Any, outputs: Sequence[str], feeds: Arrays, options: Any = None) -> list[Any]:
    """`session.run` for models with bfloat16: its tensors are float32 arrays on both sides."""
    halves = {node.name for node in session.get_inputs() if node.type == "tensor(bfloat16)"}
    kept = {name: bfloat16.to_bits(array) if name in halves else array for name, array in feeds.items()}
    values = {name: _value(engine, array, is_half=name in halves) for name, array in kept.items()}
    return [_array(value) for value in session.run_with_ort_values(list(outputs), values, options)]


def _value(engine: Any, array: np.ndarray, *, is_half: bool) -> Any:
    if is_half:
        return engine.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    if array.dtype == object:
        raise BadInput("onnxruntime takes no text beside bfloat16 inputs: give these another type inside the model")
    return engine.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _array(value: Any) -> np.ndarray:
    """The array of an engine's value: a copy, as the value's memory goes with it."""
    if value.element_type() != _BFLOAT16:
        found: np.ndarray = value.numpy()
        return found
    shape = value.shape()
    size = math.prod(shape)
    if not size:
        return np.zeros(shape, dtype=np.float32)
    bits = np.ctypeslib.as_array((ctypes.c_uint16 * size).from_address(value.data_ptr()))
    array: np.ndarray = bfloat16.from_bits(bits).reshape(shape)
    return array
