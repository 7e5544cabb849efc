"""TFLite: from what a file says about itself to the fields of a step, and whether the runtime can run it.

Names are those of the model's signature, else of its tensors. A quantized input or output has the integers of the
model, or numbers where the project's schema says float32: the runtime then applies the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from columns.schema import Field, Schema
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.frameworks.tensor_rows import asked_fields, fits, nested, row_axes, scalar_of
from packager.frameworks.tflite_wire import TfliteFile, TfliteTensor, read_tflite
from packager.project import StepSource

VERSION = 3  # of the format; every TFLite runtime of the last years reads this one
LONGEST_NAME = 200  # characters of a field's name
_ELEMENTS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "bool")


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a model, each thing as a named check. Raises BadInput when one of them fails."""
    model: TfliteFile | None = None
    fields: tuple[Schema, Schema] | None = None
    with checklist.check("model.version") as found:
        model = read_tflite(source.model)
        check_operators(source.model, model)
        found.append(f"TFLite schema {model.version}; {_signatures(model)}")
    checklist.require()
    assert model is not None  # noqa: S101 - the check before has passed
    with checklist.check("model.schema") as found:
        fields = schemas(source.model, model, list(source.tensor_fields), source.input, source.output)
        found.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    checklist.require()
    assert fields is not None  # noqa: S101 - as above
    path = f"models/{source.name}/{source.model.name}"
    digest = file_digest(source.model)
    return ModelArtifact(source, "tflite", *fields, {path: source.model}, path, digest, _signatures(model), "tflite")


def check_operators(path: Path, model: TfliteFile) -> None:
    """Raise BadInput for another version of the format and for operators that no TFLite runtime has."""
    if model.version != VERSION:
        raise BadInput(f"model '{path.name}' has version {model.version} of the TFLite format: expected {VERSION}")
    flex = [name for name in model.custom if name.startswith("Flex")]
    if flex:
        raise BadInput(
            f"model '{path.name}' needs TensorFlow's own operators ({_listed(flex)}): convert it without "
            "SELECT_TF_OPS, or upload the SavedModel"
        )
    if model.custom:
        raise BadInput(
            f"model '{path.name}' has custom operators ({_listed(model.custom)}), which the runtime does not have: "
            "convert it to built-in ones"
        )


def schemas(
    path: Path,
    model: TfliteFile,
    tensor_fields: list[str],
    inputs: Mapping[str, str] | None,
    outputs: Mapping[str, str] | None,
) -> tuple[Schema, Schema]:
    """The fields a step takes and gives: the model's, its inputs renamed by `tensor_fields`.

    `inputs` and `outputs` are the types given in `[steps.input]` and `[steps.output]`: they agree with the model, fix
    an axis that it leaves free, take the whole tensor as one row, or say float32 where it is quantized.
    """
    own = [tensor.name for tensor in model.inputs]
    if tensor_fields and len(tensor_fields) != len(own):
        raise BadInput(
            f"tensor_fields has {len(tensor_fields)} names, model '{path.name}' has {len(own)} inputs: "
            f"{', '.join(own)}",
            field="tensor_fields",
        )
    return (
        _side(path, "input", tensor_fields or own, model.inputs, inputs),
        _side(path, "output", [tensor.name for tensor in model.outputs], model.outputs, outputs),
    )


def _side(
    path: Path, side: str, names: list[str], tensors: tuple[TfliteTensor, ...], given: Mapping[str, str] | None
) -> Schema:
    if not names or len(set(names)) != len(names):
        raise BadInput(f"model '{path.name}' has {side}s without a name of their own: {', '.join(names)[:200]}")
    asked = None if given is None else asked_fields(side, names, given)
    return Schema(tuple(_field(path, side, name, each, asked) for name, each in zip(names, tensors, strict=True)))


def _field(path: Path, side: str, name: str, tensor: TfliteTensor, asked: Schema | None) -> Field:
    where = f"{side} '{tensor.name[:LONGEST_NAME]}' of model '{path.name}'"
    if tensor.element not in _ELEMENTS:
        raise BadInput(f"{where} has elements of type {tensor.element}: cast it to one of {', '.join(_ELEMENTS)}")
    if not name.isprintable() or len(name) > LONGEST_NAME:
        raise BadInput(f"{where} has a name that no answer can carry: name it in the model's signature")
    if asked is None:
        return Field(name, nested(tensor.element, row_axes(tensor.dims)))
    given = asked[name]
    elements = [tensor.element, *(["float32"] if tensor.is_quantized else [])]
    readings = [nested(each, axes) for each in elements for axes in (row_axes(tensor.dims), tensor.dims)]
    if scalar_of(given.type) not in elements or not any(fits(given.type, reading) for reading in readings):
        raise BadInput(
            f"[steps.{side}] {name} is {given.text}, the model has {readings[0]}", field=f"steps.{side}.{name}"
        )
    return given


def _signatures(model: TfliteFile) -> str:
    return f"signature '{', '.join(model.signatures)}'" if model.signatures else "no signature"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(name[:60] for name in names[:5])
