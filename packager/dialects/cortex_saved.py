"""SavedModels of a Cortex API: converted and proven where that can be, else left to TensorFlow in the worker.

A predictor's own code stands between a model and its answers, so that a model which is not converted is no error: the
library that it was made with is taken along, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
_RUNTIME = "onnxruntime"


@dataclass
class Saved:
    """What became of the models of an API: ONNX files by (model, version), what the worker needs, how they compared."""

    converted: dict[tuple[str, str], Path] = field(default_factory=dict)
    needs: set[str] = field(default_factory=set)
    parity: dict[str, Any] | None = None


def place_of(name: str, version: str) -> str:
    """Where a converted model lies in the bundle's folder."""
    return f"{CONVERTED}/{name}/{version}/model.onnx"


def converted(
    models: list[Versions],
    files: Mapping[str, Path],
    signatures: Mapping[str, str | None],
    source: StepSource,
    checklist: Checklist,
    cache: Path,
) -> Saved:
    """Convert each version of each model; `files` are the API's by their place, `signatures` those asked for."""
    saved = Saved()
    for name, version, place in _every(models):
        made = _native(on_disk(files, place), signatures.get(name), source, checklist, cache)
        if isinstance(made, ModelArtifact):
            saved.converted[name, version] = made.files[made.model]
            saved.needs.add(_RUNTIME)
            saved.parity = made.parity if len(models) == 1 else None
        else:
            checklist.notice(f"model '{name}', version {version}, runs in TensorFlow: {made}")
            saved.needs.update(tensorflow.libraries(source, checklist, cache))
    return saved


def on_disk(files: Mapping[str, Path], place: str) -> Path:
    """Where a folder of files lies on this machine."""
    inside = next(each for each in files if each.startswith(f"{place}/"))
    return files[inside].parents[len(PurePosixPath(inside).parts) - len(PurePosixPath(place).parts) - 1]


def _every(models: list[Versions]) -> Iterator[tuple[str, str, str]]:
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
        return str(error)
    return made if made.kind is None else made.reason or "it was not converted"
