"""What scikit-learn, XGBoost and LightGBM share: scan, convert in a pinned environment, prove, choose a runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.golden import GoldenRows
from columns.schema import Schema
from edgepack.errors import BadInput
from packager import gate
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.conversion import convert
from packager.environments import Environment, Recipe, ready
from packager.frameworks.estimators import Saved, saved_as
from packager.frameworks.outcome import MODEL, ROWS, Asked, Outcome, Proven, kept_outcome
from packager.project import GoldenSource, StepSource
from packager.synthetic import user_rows

_TRIAL_S = 120.0


@dataclass(frozen=True)
class Tabular:
    """A framework: the libraries its worker needs beside numpy, and the environment for an artefact."""

    name: str
    libraries: tuple[str, ...]
    recipe: Callable[[Saved], Recipe]


def inspect_tabular(kind: Tabular, source: StepSource, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check. Raises BadInput when one of them fails."""
    saved, declared, environment = None, None, None
    with checklist.check("model.globals") as found:
        saved = saved_as(source.model)
        if saved is None:
            raise BadInput(f"'{source.model.name}' is not a saved model of {kind.name}")
        found.append(_told(saved))
    with checklist.check("model.schema") as found:
        declared = _declared(source, kind)
        found.append("given" if declared[0] or declared[1] else "taken from the model")
    checklist.require()
    assert saved is not None and declared is not None  # noqa: S101 - the checks have passed
    with checklist.check("model.environment") as found:
        environment = ready(
            kind.recipe(saved),
            cache,
            os.environ,
            notice=checklist.notice,
            progress=checklist.progress,
            wheels=source.wheels,
        )
        found.append(f"'{environment.kept.title}', Python {environment.kept.python}")
    checklist.require()
    assert environment is not None  # noqa: S101 - as above
    folder, outcome = None, None
    with checklist.check("model.converts") as found:
        folder, outcome = _converted(source, saved, environment, declared, cache)
        found.append(f"runtime {'onnx' if outcome.is_native else 'python'}")
        found += [outcome.reason] if outcome.reason else []
    checklist.require()
    assert folder is not None and outcome is not None  # noqa: S101 - as above
    return _artifact(kind, source, saved, environment, folder, outcome)


def _told(saved: Saved) -> str:
    many = "1 name, a model's" if len(saved.globals) == 1 else f"{len(saved.globals)} names, all of them a model's"
    count = many if saved.globals else "no code in it"
    version = f", saved by scikit-learn {', '.join(saved.versions)}" if saved.versions else ""
    return f"{saved.model}{version}; {count}"


def _declared(source: StepSource, kind: Tabular) -> tuple[Schema | None, Schema | None]:
    if source.tensor_fields:
        raise BadInput(
            f"step '{source.name}' has tensor_fields: framework '{kind.name}' names its fields in [steps.input]",
            field="steps.tensor_fields",
        )
    return (
        None if source.input is None else Schema.parse(source.input),
        None if source.output is None else Schema.parse(source.output),
    )


def _converted(
    source: StepSource,
    saved: Saved,
    environment: Environment,
    declared: tuple[Schema | None, Schema | None],
    cache: Path,
) -> tuple[Path, Outcome]:
    """The folder with the outcome, and what it says."""
    golden = source.golden or GoldenSource(None, Path())
    rows = user_rows(golden, *declared)

    def prove(folder: Path) -> Proven:
        found = convert(
            source.model, saved.form, environment, folder, inputs=declared[0], outputs=declared[1], rows=rows
        )
        return Proven(found, gate.choose(found.attempts, golden.tolerance, _TRIAL_S))

    asked = Asked(file_digest(source.model), environment, declared, rows, golden.tolerance)
    return kept_outcome(source.model.name, asked, cache, prove)


def _artifact(
    kind: Tabular, source: StepSource, saved: Saved, environment: Environment, folder: Path, outcome: Outcome
) -> ModelArtifact:
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
        requirements=_requirements(kind, environment, outcome, saved),
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
