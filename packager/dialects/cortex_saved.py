"""SavedModels of a Cortex API: converted and proven where that can be, else left to TensorFlow in the worker.

A predictor's own code stands between a model and its answers, so that a model which is not converted is no error: the
library that it was made with is taken along, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bundle.model_folders import Versions
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks import tensorflow
from packager.project import StepSource

CONVERTED = "converted"
_SERVED = "serving_default"  # the signature that is converted
_NOT_LOADED = "does not load in TensorFlow"  # of what a conversion says
_WAY_OUT = ": package it as framework"  # that it offers: a predictor needs none
_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Asked:
    """The models of an API, its files by their place, the signatures that are asked for by the model's name; and
    whether the API brings a TensorFlow of its own, which may load what ours does not.
    """

    models: Sequence[Versions]
    files: Mapping[str, Path]
    signatures: Mapping[str, str | None]
    brings_library: bool


@dataclass
class Saved:
    """What became of the models of an API: ONNX files by (model, version), what the worker needs, how they compared."""

    converted: dict[tuple[str, str], Path] = field(default_factory=dict)
    needs: set[str] = field(default_factory=set)
    parity: dict[str, Any] | None = None


def place_of(name: str, version: str) -> str:
    """Where a converted model lies in the bundle's folder."""
    return f"{CONVERTED}/{name}/{version}/model.onnx"


def converted(asked: Asked, source: StepSource, checklist: Checklist, cache: Path) -> Saved:
    """Convert each version of each model. Raises BadInput for one that no TensorFlow at hand loads."""
    saved = Saved()
    for name, version, place in _every(asked.models):
        made = _native(on_disk(asked.files, place), asked.signatures.get(name), source, checklist, cache)
        if isinstance(made, str) and _NOT_LOADED in made and not asked.brings_library:
            raise BadInput(f"model '{name}', version {version}: {made}")
        if isinstance(made, ModelArtifact):
            saved.converted[name, version] = made.files[made.model]
            saved.needs.add(_RUNTIME)
            saved.parity = made.parity if len(asked.models) == 1 else None
        else:
            checklist.notice(f"model '{name}', version {version}, runs in TensorFlow: {made}")
            saved.needs.update(tensorflow.libraries(source, checklist, cache))
    return saved


def on_disk(files: Mapping[str, Path], place: str) -> Path:
    """Where a folder of files lies on this machine."""
    inside = next(each for each in files if each.startswith(f"{place}/"))
    return files[inside].parents[len(PurePosixPath(inside).parts) - len(PurePosixPath(place).parts) - 1]


def _every(models: Sequence[Versions]) -> Iterator[tuple[str, str, str]]:
    for model in models:
        for version, place in model.places.items():
            yield model.name, version, place


def _native(
    folder: Path, signature: str | None, source: StepSource, checklist: Checklist, cache: Path
) -> ModelArtifact | str:
    """The model as ONNX, or why it is none."""
    if signature not in (None, _SERVED):
        return f"it is asked by its signature '{signature}'"
    own = Checklist(progress=checklist.progress, notice=checklist.notice)
    try:
        made = tensorflow.inspect_model(
            StepSource(source.name, folder, wheels=source.wheels), folder.parent, own, cache
        )
    except BadInput as error:
        return str(error).removeprefix(f"model '{folder.name}': ").partition(_WAY_OUT)[0]
    return made if made.kind is None else made.reason or "it was not converted"
