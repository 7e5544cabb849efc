"""Reads what a TFLite file says about itself from its flatbuffer, without an engine and without its weights.

Field numbers are those of TensorFlow's `tensorflow/compiler/mlir/lite/schema/schema.fbs`, version 3.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import BadInput
from packager.frameworks.flatbuffer import Flatbuffer, Table

MAGIC = b"TFL3"  # at byte 4
SIGNATURE = "serving_default"  # what TensorFlow's converter names the signature of a model that has one

_CUSTOM = 32  # BuiltinOperator
_TYPES = {
    **{0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 7: "int16"},
    **{8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 13: "resource", 14: "variant"},
    **{15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16"},
}  # TensorType


@dataclass(frozen=True)
class TfliteTensor:
    """An input or output. None is a free axis; `is_quantized` when one scale maps its integers to numbers."""

    name: str
    element: str
    dims: tuple[int | None, ...]
    is_quantized: bool


@dataclass(frozen=True)
class TfliteFile:
    """What the file says."""

    version: int
    signatures: tuple[str, ...]
    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    custom: tuple[str, ...]  # operators that the format itself does not have


def read_tflite(path: Path) -> TfliteFile:
    """Read a file. Raises BadInput for what is empty, cut short or no TFLite model."""
    if path.stat().st_size < 8:
        raise BadInput(f"'{path.name}' has {path.stat().st_size} bytes: expected a TFLite model")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        if bytes(view[4:8]) != MAGIC:
            raise BadInput(f"'{path.name}' is not a TFLite model: it does not say TFL3 at byte 4")
        return _model(Flatbuffer(view, path.name, "TFLite model"), path.name)


def _model(source: Flatbuffer, name: str) -> TfliteFile:
    model = source.root()
    graphs = model.tables(2)
    if not graphs:
        raise source.damaged("it has no graph")
    keys = {entry.text(2): entry for entry in model.tables(7)}
    chosen = _chosen(keys, name)
    if chosen is not None and chosen.number(4, "<I"):
        raise BadInput(f"model '{name}' has its signature '{chosen.text(2)}' on a graph other than the first")
    tensors = graphs[0].tables(0)
    inputs, outputs = (_numbers(graphs[0], field, len(tensors)) for field in (1, 2))
    custom = sorted({code.text(1) or "unnamed" for code in model.tables(1) if _code(code) == _CUSTOM})
    return TfliteFile(
        model.number(0, "<I"),
        tuple(keys),
        tuple(_tensor(tensors[at], _names(chosen, 0), at) for at in inputs),
        tuple(_tensor(tensors[at], _names(chosen, 1), at) for at in outputs),
        tuple(custom),
    )


def _chosen(keys: dict[str, Table], name: str) -> Table | None:
    """The signature that gives names: the only one, or TensorFlow's usual one."""
    if len(keys) > 1 and SIGNATURE not in keys:
        listed = ", ".join(f"'{key}'" for key in sorted(keys))
        raise BadInput(
            f"model '{name}' has the signatures {listed}: export it with one, or with one named '{SIGNATURE}'"
        )
    return keys.get(SIGNATURE) or next(iter(keys.values()), None)


def _names(signature: Table | None, field: int) -> dict[int, str]:
    return {} if signature is None else {each.number(1, "<I"): each.text(0) for each in signature.tables(field)}


def _numbers(graph: Table, field: int, count: int) -> tuple[int, ...]:
    found = graph.numbers(field, "<i")
    if not all(0 <= each < count for each in found):
        raise graph.file.damaged("it names a tensor that it does not have")
    return found


def _code(code: Table) -> int:
    """The operator: an old file keeps it in one byte, a new one in four (schema.fbs: BuiltinOperator)."""
    return max(code.number(0, "<b"), code.number(3, "<i"))


def _tensor(tensor: Table, names: dict[int, str], at: int) -> TfliteTensor:
    element = _TYPES.get(tensor.number(1, "<b"), "an unknown type")
    dims = tensor.numbers(7, "<i") or tensor.numbers(0, "<i")
    if any(size < -1 for size in dims):
        raise tensor.file.damaged("a tensor of it has a negative size")
    quantization = tensor.table(4)
    scales = () if quantization is None else quantization.numbers(2, "<f")
    is_quantized = len(scales) == 1 and element in ("int8", "uint8", "int16")
    name = names.get(at) or _plain(tensor.text(3))
    return TfliteTensor(name, element, tuple(None if size < 1 else size for size in dims), is_quantized)


def _plain(name: str) -> str:
    """A tensor's own name without what TensorFlow's exporters put around it."""
    return name.removeprefix("serving_default_").rpartition(":")[0].rpartition("/")[2] or name
