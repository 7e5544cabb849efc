"""What scikit-learn, XGBoost and LightGBM share: scan, convert in a pinned environment, prove, choose a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bundle.golden import GoldenRows
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.conversion import ESTIMATOR
from packager.environments import Environment, Recipe
from packager.frameworks.estimators import Form, Saved, saved_as
from packager.frameworks.outcome import MODEL, ROWS, Outcome
from packager.frameworks.proving import Candidate, Verdict, declared_fields, prove
from packager.project import StepSource


@dataclass(frozen=True)
class Tabular:
    """A framework: the libraries its worker needs beside numpy, and the environment for an artefact."""

    name: str
    libraries: tuple[str, ...]
    recipe: Callable[[Saved], Recipe]


def inspect_tabular(
    kind: Tabular, source: StepSource, checklist: Checklist, cache: Path, form: Form | None = None
) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check; `form` says how to load it where the file alone
    does not. Raises BadInput when a check fails.
    """
    saved, declared = None, None
    with checklist.check("model.globals") as found:
        saved = saved_as(source.model)
        if saved is None:
            raise BadInput(f"'{source.model.name}' is not a saved model of {kind.name}")
        saved = saved if form is None else replace(saved, form=form)
        found.append(_told(saved))
    with checklist.check("model.schema") as found:
        declared = declared_fields(source, kind.name)
        found.append("given" if declared[0] or declared[1] else "taken from the model")
    checklist.require()
    assert saved is not None and declared is not None  # noqa: S101 - the checks have passed
    candidate = Candidate(source.model, saved.form, file_digest(source.model), kind.recipe(saved), ESTIMATOR)
    return _artifact(kind, source, saved, prove(source, candidate, declared, checklist, cache))


def _told(saved: Saved) -> str:
    many = "1 name, a model's" if len(saved.globals) == 1 else f"{len(saved.globals)} names, all of them a model's"
    count = many if saved.globals else "no code in it"
    version = f", saved by scikit-learn {', '.join(saved.versions)}" if saved.versions else ""
    return f"{saved.model}{version}; {count}"


def _artifact(kind: Tabular, source: StepSource, saved: Saved, verdict: Verdict) -> ModelArtifact:
    outcome, folder = verdict.outcome, verdict.folder
    inputs, outputs = Schema.parse(outcome.input), Schema.parse(outcome.output)
    proven = {**outcome.parity, "globals": list(saved.globals)}
    place = f"models/{source.name}"
    golden = GoldenRows.decode((folder / ROWS).read_bytes(), inputs, outputs)
    if outcome.is_native:
        path = f"{place}/{MODEL}"
        file = folder / MODEL
        return ModelArtifact(
            source, kind.name, inputs, outputs, {path: file}, path, file_digest(file), saved.model,
            golden=golden, parity=proven,
        )  # fmt: skip
    path = f"{place}/{source.model.name}"
    return ModelArtifact(
        source=source,
        framework=kind.name,
        input=inputs,
        output=outputs,
        files={path: source.model},
        model=path,
        digest=file_digest(source.model),
        summary=saved.model,
        kind="estimator",
        requirements=_requirements(kind, verdict.environment, outcome, saved),
        options=_options(saved, outcome),
        reason=outcome.reason,
        golden=golden,
        parity=proven,
    )


def _requirements(kind: Tabular, environment: Environment, outcome: Outcome, saved: Saved) -> tuple[str, ...]:
    """Exact pins of what the worker imports: the versions that gave the reference answers."""
    inside = {name.partition(".")[0] for name in saved.globals}
    needed = {"numpy", *kind.libraries}
    needed |= {"pandas"} if outcome.layout == "frame" else set()
    needed |= {saved.form} & {"joblib", "skops"}
    needed |= {"xgboost-cpu"} if "xgboost" in inside else set()
    needed |= {"lightgbm"} if "lightgbm" in inside else set()
    found = environment.kept.packages
    return tuple(f"{name}=={found[name]}" for name in sorted(needed) if name in found)


def _options(saved: Saved, outcome: Outcome) -> dict[str, Any]:
    options: dict[str, Any] = {"format": saved.form, "inputs": outcome.layout, "outputs": dict(outcome.methods)}
    if outcome.layout == "frame" and outcome.names is not None:
        options["columns"] = list(outcome.names)
    if saved.form == "skops":
        options["trusted"] = list(saved.globals)
    return options
