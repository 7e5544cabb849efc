"""ONNX: from what a file says about itself to the fields of a step, and whether the runtime can run it. How tensors
become rows: `tensor_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from columns.schema import Field, Schema
from edgepack.errors import BadInput
from packager.frameworks import tensor_rows
from packager.frameworks.onnx_wire import ExternalTensor, OnnxFile, Value, read_onnx
from packager.frameworks.tensor_rows import Tensor, nested

# What the newest runtime that images carry accepts. Source: onnxruntime 1.31.1 itself, asked with one-node models of
# each
# version (tests/packager/test_onnx.py asks it again); a domain that is not listed holds custom operators.
RUNTIME = "onnxruntime 1.31.1"
NEWEST_IR = 13
NEWEST_OPSETS = {"": 26, "ai.onnx.ml": 5, "ai.onnx.training": 1, "com.microsoft": 1}

# TensorProto.DataType (onnx.proto3) → our scalar; those without one are refused by name.
_ELEMENTS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "float32",  # bfloat16, which Arrow and numpy lack: float32 holds its values, the runtime converts both ways
}
_UNSUPPORTED = {
    0: "undefined",
    14: "complex64",
    15: "complex128",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
    24: "float8e8m0",
    25: "uint2",
    26: "int2",
    27: "float6e2m3",
    28: "float6e3m2",
}


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, by its own names, and the files it needs beside it."""

    path: Path
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    producer_version: str
    metadata: Mapping[str, str]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    external: tuple[ExternalTensor, ...]

    @property
    def versions(self) -> str:
        """IR and opsets in one line."""
        sets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(self.opsets.items()))
        return f"IR {self.ir_version}, opset {sets}"

    @property
    def training(self) -> dict[str, Any]:
        """What the file says of its making: the program that wrote it, and `metadata_props`, bounded for a report."""
        said = {"producer": self.producer, "producer_version": self.producer_version}
        said |= dict(list(self.metadata.items())[:MOST_METADATA])
        return {name[:LONGEST_NAME]: text[:LONGEST_METADATA] for name, text in said.items() if text}


MOST_METADATA, LONGEST_METADATA = 100, 1000  # entries; characters of one
LONGEST_NAME = 200  # characters of a field's or domain's name


def inspect(path: Path) -> Signature:
    """Read a model's signature without loading its weights. Raises BadInput for what is not a whole ONNX model."""
    found = read_onnx(path)
    if found.ir_version >= 3 and not found.opsets:
        raise BadInput(f"'{path.name}' is not a whole ONNX model: it does not say which opset it uses")
    if not all(domain.isprintable() and len(domain) <= LONGEST_NAME for domain in found.opsets):
        raise BadInput(f"'{path.name}' is not a whole ONNX model: it names an opset that cannot be printed")
    inputs = tuple(value for value in found.inputs if value.name not in found.initializers)
    for side, values in (("inputs", inputs), ("outputs", tuple(found.outputs))):
        _check_names(path, side, values)
    return Signature(
        path,
        found.ir_version,
        dict(found.opsets),
        found.producer,
        found.producer_version,
        dict(found.metadata),
        inputs,
        tuple(found.outputs),
        tuple(_distinct(found)),
    )


def check_version(signature: Signature) -> None:
    """Raise BadInput when the file is newer than the runtime, with what was found and what runs."""
    name = signature.path.name
    if signature.ir_version > NEWEST_IR:
        raise BadInput(
            f"model '{name}' has IR version {signature.ir_version}, {RUNTIME} runs up to {NEWEST_IR}: "
            f"export it with ir_version={NEWEST_IR} or older"
        )
    for domain, version in sorted(signature.opsets.items()):
        newest = NEWEST_OPSETS.get(domain)
        if newest is not None and version > newest:
            raise BadInput(
                f"model '{name}' uses opset {version} of {domain or 'ai.onnx'}, {RUNTIME} runs up to {newest}: "
                f"export it with opset {newest} or older{' (17 runs everywhere)' if not domain else ''}"
            )


def schemas(
    signature: Signature, tensor_fields: list[str], inputs: Mapping[str, str] | None, outputs: Mapping[str, str] | None
) -> tuple[Schema, Schema]:
    """The fields a step takes and gives: see `tensor_rows.schemas`."""
    sides = _tensors(signature, "input", signature.inputs), _tensors(signature, "output", signature.outputs)
    return tensor_rows.schemas(signature.path.name, sides, tensor_fields, inputs, outputs)


def whole_schemas(signature: Signature, tensor_fields: list[str]) -> tuple[Schema, Schema] | None:
    """The fields if each tensor is one row, first axis and all; None where the file says that first axes are rows, or
    says nothing of shapes.

    It says so when each output's first axis is called as an input's, or is nameless like it: exporters name the rows
    alike on both sides.
    """
    sides = (signature.inputs, signature.outputs)
    if not all(value.dims for side in sides for value in side):
        return None
    rows = {value.dims[0] for value in signature.inputs if value.dims}
    if all(value.dims and value.dims[0] in rows for value in signature.outputs):
        return None
    names = tensor_fields or [value.name for value in signature.inputs], [value.name for value in signature.outputs]
    inputs, outputs = (
        Schema(
            tuple(
                Field(name, nested(_element(signature, label, value), value.dims or ()))
                for name, value in zip(named, side, strict=True)
            )
        )
        for label, named, side in zip(("input", "output"), names, sides, strict=True)
    )
    return inputs, outputs


def _tensors(signature: Signature, side: str, values: tuple[Value, ...]) -> list[Tensor]:
    return [Tensor(value.name, (_element(signature, side, value),), value.dims) for value in values]


def external_files(signature: Signature, root: Path) -> dict[str, Path]:
    """The files that hold weights outside the model, by their path relative to it.

    Raises BadInput for a path that leads out of the project or through a link, and for a file that is missing or too
    short.
    """
    folder = signature.path.parent
    files: dict[str, Path] = {}
    for tensor in signature.external:
        path = folder / _relative(signature, tensor.location)
        if not path.is_file() or not path.resolve().is_relative_to(root.resolve()) or _through_link(path, folder):
            raise BadInput(
                f"model '{signature.path.name}' keeps weights in '{tensor.location}': no such plain "
                "file beside it in the project"
            )
        size = path.stat().st_size
        if tensor.offset + (tensor.length or 0) > size:
            raise BadInput(
                f"model '{signature.path.name}' expects {tensor.offset + (tensor.length or 0)} bytes "
                f"in '{tensor.location}', "
                f"it has {size}: copy it again"
            )
        files[tensor.location] = path
    return files


def _relative(signature: Signature, location: str) -> PurePosixPath:
    path = PurePosixPath(location)
    if (
        not location
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in location
        or not location.isprintable()
        or str(path) != location
    ):
        raise BadInput(
            f"model '{signature.path.name}' keeps weights in {location[:100]!a}: expected a plain path beside the model"
        )
    return path


def _through_link(path: Path, folder: Path) -> bool:
    """Whether a part of a path below a folder is a link. ONNX Runtime refuses such weights too."""
    return any(each.is_symlink() for each in (path, *path.parents) if each != folder and each.is_relative_to(folder))


def _distinct(found: OnnxFile) -> list[ExternalTensor]:
    """One entry a file, with the furthest byte that a tensor needs of it."""
    furthest: dict[str, int] = {}
    for tensor in found.external:
        end = tensor.offset + (tensor.length or 0)
        furthest[tensor.location] = max(end, furthest.get(tensor.location, 0))
    return [ExternalTensor(location, 0, end) for location, end in sorted(furthest.items())]


def _check_names(path: Path, side: str, values: tuple[Value, ...]) -> None:
    names = [value.name for value in values]
    if not names:
        raise BadInput(f"model '{path.name}' has no {side}: expected at least one")
    odd = [name for name in names if not name.isprintable() or len(name) > LONGEST_NAME]
    if odd:
        raise BadInput(f"model '{path.name}' has {side} with names that no answer can carry: {ascii(odd[0])[:100]}")
    if len(set(names)) != len(names) or not all(names):
        raise BadInput(f"model '{path.name}' has {side} without a name of their own: {', '.join(names)[:200]}")


def _element(signature: Signature, side: str, value: Value) -> str:
    """The scalar of a tensor. Raises BadInput that names what else it is."""
    where = f"{side} '{value.name}' of model '{signature.path.name}'"
    if value.kind != "tensor":
        raise BadInput(
            f"{where} is a {value.kind}: this version runs tensors (scikit-learn: convert with zipmap=False)"
        )
    if value.element not in _ELEMENTS:
        raise BadInput(
            f"{where} has elements of type {_UNSUPPORTED.get(value.element, value.element)}: cast it "
            "to a type of numpy's"
        )
    return _ELEMENTS[value.element]
