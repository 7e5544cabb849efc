"""TFLite: from what a file says about itself to the fields of a step, and whether the runtime can run it.

Names are those of the model's signature, else of its tensors. A quantized input or output has the integers of the
model, or numbers where the project's schema says float32: the runtime then applies the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from columns.schema import Schema
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.frameworks import tensor_rows
from packager.frameworks.tensor_rows import Tensor
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
    """The fields a step takes and gives: see `tensor_rows.schemas`. What is quantized may be called float32."""
    own = [each.name for each in model.inputs]
    for name in (*(tensor_fields or own), *(each.name for each in model.outputs)):
        if not _is_plain(name):
            raise BadInput(
                f"model '{path.name}' has a field whose name no answer can carry: {ascii(name)[:100]}: name it in the "
                "model's signature, or an input by tensor_fields"
            )
    sides = _tensors(path, "input", model.inputs), _tensors(path, "output", model.outputs)
    return tensor_rows.schemas(path.name, sides, tensor_fields, inputs, outputs)


def _is_plain(name: str) -> bool:
    return name.isprintable() and len(name) <= LONGEST_NAME


def _tensors(path: Path, side: str, tensors: tuple[TfliteTensor, ...]) -> list[Tensor]:
    odd = next((tensor for tensor in tensors if tensor.element not in _ELEMENTS), None)
    if odd is not None:
        raise BadInput(
            f"{side} '{_shown(odd.name)}' of model '{path.name}' has elements of type {odd.element}: cast it to one of "
            f"{', '.join(_ELEMENTS)}"
        )
    return [
        Tensor(_shown(each.name), (each.element, *(["float32"] if each.is_quantized else [])), each.dims)
        for each in tensors
    ]


def _shown(name: str) -> str:
    """A name as lines for people have it: one that is no field's may be any text."""
    return name if _is_plain(name) else ascii(name)[1:-1][:LONGEST_NAME]


def _signatures(model: TfliteFile) -> str:
    return f"signature '{_listed(model.signatures)}'" if model.signatures else "no signature"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(_shown(name)[:60] for name in names[:5])
