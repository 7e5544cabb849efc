"""Inspecting a step: its framework is found, then that one's module looks at the model. Nothing is executed."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

import platformdirs

from packager.artifact import ModelArtifact
from packager.cache import writing
from packager.checks import Checklist
from packager.detect import detect
from packager.frameworks import hugging_face
from packager.project import MLFLOW_IMAGE, StepSource

# framework → the module that inspects its models: `inspect_model(source, root, checklist, cache) -> ModelArtifact`
_MODULES = {
    "onnx": "packager.frameworks.onnx_model",
    "tflite": "packager.frameworks.tflite",
    "pytorch": "packager.frameworks.pytorch",
    "keras": "packager.frameworks.keras",
    "tensorflow": "packager.frameworks.tensorflow",
    **{name: "packager.frameworks.hugging_face" for name in hugging_face.FRAMEWORKS},
    "python": "packager.frameworks.python_step",
    "custom": "packager.frameworks.custom",
    "sklearn": "packager.frameworks.sklearn",
    "xgboost": "packager.frameworks.xgboost",
    "lightgbm": "packager.frameworks.lightgbm",
    "mlflow": "packager.dialects.mlflow",
    MLFLOW_IMAGE: "packager.dialects.mlflow_image",
    "vessl": "packager.dialects.vessl",
    "cortex": "packager.dialects.cortex",
    "ads": "packager.dialects.ads",
}


class Inspects(Protocol):
    """What a framework's module offers."""

    def __call__(self, source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
        """Inspect a model, each thing as a named check. Raises BadInput when one of them fails."""


def inspect_step(
    source: StepSource, root: Path, checklist: Checklist, cache: Path | None = None, wheels: Path | None = None
) -> ModelArtifact:
    """Inspect one step's model, each thing as a named check. Raises BadInput when one of them fails.

    `cache` is the user's cache folder: what a zip holds is unpacked below it, and an environment that the model needs
    is made there, from the folder `wheels` first.
    """
    cache = cache or platformdirs.user_cache_path("edgepack")
    with writing(cache):
        return _inspected(replace(source, wheels=wheels), root, checklist, cache)


def _inspected(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    with checklist.check("model.format") as found:
        framework = MLFLOW_IMAGE if source.image else detect(source.model, source.framework)
        found.append(f"'{source.image or source.model.name}' is {framework}")
    checklist.require()
    inspect: Inspects = import_module(_MODULES[framework]).inspect_model
    return inspect(source, root, checklist, cache)
