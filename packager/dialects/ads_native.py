"""The model of a generated score.py, packaged as its own library's: converted, proven, and compared with score.py.

The gate compares the converted model with the original; score.py itself is asked the same rows, in the environment of
the conversion, so that whatever it does around its model counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.golden import compare
from columns.columns import Columns
from columns.schema import Schema
from columns.values import column_from_values
from edgepack.errors import BadInput, RuntimeFailed
from packager.archives import Tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.dialects.ads_asking import Answered, Asking
from packager.dialects.ads_generated import Generated
from packager.dialects.ads_layout import SCORE
from packager.dialects.ads_score import Score
from packager.environments import CLASSIC, TENSORFLOW, TORCH, Environment, Recipe
from packager.frameworks import estimators, keras, lightgbm, pytorch, sklearn, xgboost
from packager.frameworks.proving import environment_of
from packager.project import GoldenSource, StepSource

Inspect = Callable[[StepSource, Path, Checklist, Path], ModelArtifact]

_ESTIMATORS: Mapping[str, Inspect] = {
    "sklearn": sklearn.inspect_model,
    "xgboost": xgboost.inspect_model,
    "lightgbm": lightgbm.inspect_model,
}
_NETWORKS: Mapping[str, tuple[Inspect, Recipe]] = {
    "keras": (keras.inspect_model, TENSORFLOW),
    "torchscript": (pytorch.inspect_model, TORCH),
}
_ENVIRONMENT = "model.environment"
# the reason travels in the bundle, whose bytes may not depend on where this machine keeps its files
_FOLDERS = re.compile(r"/(?:[^/\s'\"]+/)+")
_CLOUDPICKLE = Path("joblib/externals")  # where joblib carries it


@dataclass(frozen=True)
class NotNative(Exception):
    """Why score.py runs itself, for people."""

    reason: str


def inspect_native(
    score: Score,
    tree: Tree,
    source: StepSource,
    fields: tuple[Schema, Schema | None],
    checklist: Checklist,
    cache: Path,
) -> ModelArtifact:
    """Inspect the model that a generated score.py loads; `fields` are what it takes and, where the project says so,
    gives. Raises NotNative with the reason where it is not native, or answers otherwise than score.py; BadInput where
    this machine lacks what it takes to know.
    """
    if score.generated is None:
        raise NotNative(f"{SCORE} is not as ADS generates it: {score.why_not}")
    model = tree.files[score.generated.model]
    try:
        inspect, recipe = _library(score.generated, model)
    except BadInput as error:
        raise NotNative(str(error)) from error
    python, sites = _libraries(score, recipe, source, checklist, cache)
    trial = Checklist(progress=checklist.progress, notice=checklist.notice)
    try:
        with Asking.start(score, fields[0], source.name, tree.files[SCORE].parent, python, sites) as asking:
            answered = asking.first_answered(source.golden, tree, fields[1])
            alone = _as_its_own(source, model, score.generated.kind, fields[0], answered)
            made = inspect(alone, model.parent, trial, cache)
            _check_same(asking, answered, made, source.golden)
    except (BadInput, RuntimeFailed) as error:
        if any(check.key == _ENVIRONMENT and not check.passed for check in trial.checks):
            raise
        raise NotNative(_FOLDERS.sub("", str(error))) from error
    checklist.checks += trial.checks
    return made


def _library(found: Generated, model: Path) -> tuple[Inspect, Recipe]:
    """What inspects the model's file, and the environment that it is asked in."""
    if found.kind in _NETWORKS:
        return _NETWORKS[found.kind]
    saved = estimators.saved_as(model)
    if saved is None or (found.kind != "pickle" and saved.form != found.kind):
        raise BadInput(f"'{model.name}' is not what {SCORE} loads it as")
    recipe = sklearn.recipe_of(saved) if saved.framework == "sklearn" else CLASSIC
    return _ESTIMATORS[saved.framework], recipe


def _libraries(
    score: Score, recipe: Recipe, source: StepSource, checklist: Checklist, cache: Path
) -> tuple[Path, tuple[Path, ...]]:
    """The interpreter that score.py is asked in, and where it finds what it imports, as a named check: pandas, which
    networks do not need, is that of estimators.
    """
    found: list[Environment] = []
    with checklist.check(_ENVIRONMENT) as told:
        found = [environment_of(recipe, source, checklist, cache)]
        if "pandas" in score.source.imported() and "pandas" not in found[0].kept.packages:
            found.append(environment_of(CLASSIC, source, checklist, cache))
        told.append(f"{SCORE} is asked in '{found[0].kept.title}'")
    checklist.require()
    first = found[0].site_packages
    return found[0].python, (first, first / _CLOUDPICKLE, *(each.site_packages for each in found[1:]))


def _as_its_own(source: StepSource, model: Path, kind: str, inputs: Schema, answered: Answered) -> StepSource:
    """The step of the model alone, its fields those of the artifact. Networks compute in 32 bits, which JSON does not
    say.
    """
    fields = inputs.to_dict(), answered.output.to_dict()
    if kind in _NETWORKS and source.output is None:
        fields = fields[0], {name: text.replace("float64", "float32") for name, text in fields[1].items()}
    return replace(source, model=model, framework=None, input=fields[0], output=fields[1])


def _check_same(asking: Asking, answered: Answered, made: ModelArtifact, golden: GoldenSource | None) -> None:
    """That it became native, and score.py gives what the original model gave, on the rows that travel."""
    if made.kind is not None:
        raise NotNative(made.reason or "it does not convert")
    if made.golden is None or made.golden.outputs is None or (made.parity and not made.parity.get("comparable", True)):
        raise NotNative("the model differs from itself on a second run")
    said = asking.said(made.golden.inputs, answered.payload)
    if said.prediction is None:
        raise NotNative(f"{SCORE} does not answer rows that its model answers: {said.error}")
    if list(made.output.names) != list(answered.output.names):
        raise NotNative(f"the model gives {made.output.listing}, {SCORE} {answered.output.listing}")
    field = made.output.fields[0]
    try:
        column = column_from_values(field, said.prediction, json=True)
    except BadInput as error:
        raise NotNative(f"{SCORE} gives other values than its model: {error}") from error
    found = Columns(made.output, {field.name: column}, made.golden.inputs.rows)
    compared = compare(made.golden.outputs, found, golden.tolerance if golden else 1e-5)
    if not compared.passed:
        raise NotNative(f"{SCORE} answers otherwise than its model: {compared.reason}")
