"""LightGBM: pickles of its estimators and boosters, and its own text files, converted by onnxmltools."""

from __future__ import annotations

from pathlib import Path

from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import CLASSIC
from packager.frameworks.tabular import Tabular, inspect_tabular
from packager.project import StepSource


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check. Raises BadInput when one of them fails."""
    kind = Tabular("lightgbm", ("lightgbm", "scikit-learn", "scipy"), lambda _: CLASSIC)
    return inspect_tabular(kind, source, checklist, cache)
