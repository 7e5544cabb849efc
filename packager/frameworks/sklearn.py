"""scikit-learn: pickle, joblib and skops files, converted by skl2onnx in an environment of the version that saved."""

from __future__ import annotations

from pathlib import Path

from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import CLASSIC, Recipe
from packager.environments.interpreters import own_minor
from packager.frameworks.estimators import Saved
from packager.frameworks.tabular import Tabular, inspect_tabular
from packager.project import StepSource


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check. Raises BadInput when one of them fails."""
    return inspect_tabular(Tabular("sklearn", ("scikit-learn", "scipy"), recipe_of), source, checklist, cache)


def recipe_of(saved: Saved) -> Recipe:
    """The current environment, or that of the version in the file: another minor one may answer differently."""
    version = max(saved.versions, key=_parts, default="")
    return CLASSIC.having("scikit-learn", version, own_minor()) if version else CLASSIC


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
