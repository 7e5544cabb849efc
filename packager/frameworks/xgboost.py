"""XGBoost: pickles of its estimators and boosters, `.json` and `.ubj`, converted from the booster's own JSON."""

from __future__ import annotations

from pathlib import Path

from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import CLASSIC
from packager.frameworks.tabular import Tabular, inspect_tabular
from packager.project import StepSource

# its estimators are scikit-learn's subclasses and need it when they are unpickled
_KIND = Tabular("xgboost", ("xgboost-cpu", "scikit-learn", "scipy"), lambda _: CLASSIC)


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check. Raises BadInput when one of them fails."""
    return inspect_tabular(_KIND, source, checklist, cache)


def inspect_estimator(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """The same for a booster's file that scikit-learn's interface saved, and that is to answer as that one does."""
    return inspect_tabular(_KIND, source, checklist, cache, "xgboost-estimator")
