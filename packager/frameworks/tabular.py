"""What scikit-learn, XGBoost and LightGBM share: scan, convert in a pinned environment, prove, choose a runtime.

The outcome is kept in the cache under everything it depends on: the artefact, the environment, our converters, the
fields and rows that were asked for. A second build of the same artefact converts nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from bundle.golden import GoldenRows
from columns.schema import Schema
from durable.files import publish
from edgepack.errors import BadInput
from packager import gate
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.conversion import NATIVE, Converted, convert
from packager.environments import Environment, Recipe, ready
from packager.frameworks.estimators import Saved, saved_as
from packager.project import GoldenSource, StepSource
from packager.synthetic import carried_rows, user_rows

FOLDER = "conversions"
_OUTCOME, _MODEL, _ROWS = "outcome.json", "model.onnx", "golden.json"
_CODE = Path(__file__).parents[1] / "convert"
_TRIAL_S = 120.0


@dataclass(frozen=True)
class Tabular:
    """A framework: the libraries its worker needs beside numpy, and the environment for an artefact."""

    name: str
    libraries: tuple[str, ...]
    recipe: Callable[[Saved], Recipe]


class Outcome(msgspec.Struct, frozen=True):
    """What converting and proving gave, as it is kept. `input` and `output` are fields of the chosen attempt."""

    strategy: str
    input: dict[str, str]
    output: dict[str, str]
    layout: str
    names: list[str] | None
    methods: dict[str, str]
    parity: dict[str, Any]
    reason: str | None

    @property
    def is_native(self) -> bool:
        """Whether there is a converted model."""
        return self.strategy in NATIVE


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
        folder = _converted(source, saved, environment, declared, cache)
        outcome = msgspec.json.decode((folder / _OUTCOME).read_bytes(), type=Outcome)
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
) -> Path:
    """The folder with the outcome: kept from an earlier run, or made now."""
    golden = source.golden or GoldenSource(None, Path())
    rows = user_rows(golden, *declared)
    asked = {
        "artefact": str(file_digest(source.model)),
        "environment": environment.kept.key,
        "code": _code_digest(),
        "fields": [None if each is None else each.to_dict() for each in declared],
        "rows": rows,
        "tolerance": golden.tolerance,
    }
    key = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]
    final = cache / FOLDER / key
    if (final / _OUTCOME).is_file():
        with suppress(OSError):
            os.utime(final / _OUTCOME)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=final.parent) as work:
        folder = Path(work)
        found = convert(
            source.model, saved.form, environment, folder / "child", inputs=declared[0], outputs=declared[1], rows=rows
        )
        verdict = gate.choose(found.attempts, golden.tolerance, _TRIAL_S)
        stage = folder / "outcome"
        _write(stage, found, verdict, environment, golden)
        with suppress(FileExistsError, OSError):  # another build was first: its outcome is the same
            publish(stage, final)
    if not (final / _OUTCOME).is_file():
        raise BadInput(f"the conversion of '{source.model.name}' cannot be kept in '{final.parent}': is it writable?")
    return final


def _write(
    stage: Path, found: Converted, verdict: gate.Verdict, environment: Environment, golden: GoldenSource
) -> None:
    stage.mkdir()
    attempt = verdict.attempt
    if attempt.model is not None:
        shutil.copyfile(attempt.model, stage / _MODEL)
    (stage / _ROWS).write_bytes(carried_rows(attempt).encode())
    outcome = Outcome(
        strategy=attempt.strategy,
        input=attempt.input.to_dict(),
        output=attempt.output.to_dict(),
        layout=found.layout,
        names=found.names,
        methods=dict(attempt.methods),
        parity=_parity(found, verdict, environment, golden),
        reason=verdict.reason,
    )
    (stage / _OUTCOME).write_bytes(msgspec.json.encode(outcome))


def _parity(found: Converted, verdict: gate.Verdict, environment: Environment, golden: GoldenSource) -> dict[str, Any]:
    """The step's part of the parity report."""
    is_native = verdict.attempt.strategy in NATIVE
    return {
        **gate.figures(verdict.comparison),
        "tolerance": golden.tolerance,
        "runtime": "onnx" if is_native else "python",
        "strategy": verdict.attempt.strategy,
        "reason": "compared with the original, all rows at once and one by one"
        if is_native
        else verdict.reason or "no native runtime",
        "comparable": gate.NOT_COMPARABLE not in (verdict.reason or ""),
        "trail": list(verdict.trail),
        "original": found.model,
        "environment": environment.kept.title,
        "versions": dict(found.versions),
        "parameters": _plain(found.parameters),
        "training": _plain(found.training),
    }


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters for a report: a bounded number of bounded values."""
    return {
        name[:100]: str(value)[:200] if isinstance(value, str) else value
        for name, value in list(parameters.items())[:200]
    }


def _artifact(
    kind: Tabular, source: StepSource, saved: Saved, environment: Environment, folder: Path, outcome: Outcome
) -> ModelArtifact:
    inputs, outputs = Schema.parse(outcome.input), Schema.parse(outcome.output)
    proven = {**outcome.parity, "globals": list(saved.globals)}
    place = f"models/{source.name}"
    golden = GoldenRows.decode((folder / _ROWS).read_bytes(), inputs, outputs)
    if outcome.is_native:
        path = f"{place}/{_MODEL}"
        file = folder / _MODEL
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


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Our converters as they are: a changed one asks anew."""
    digest = hashlib.sha256()
    for path in sorted([*_CODE.glob("*.py"), *_CODE.parent.glob("gate.py"), *_CODE.parent.glob("conversion.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def list_conversions(cache: Path) -> tuple[int, int]:
    """How many files of conversions are kept, and their bytes."""
    sizes = [path.stat().st_size for path in (cache / FOLDER).rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def prune_conversions(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove conversions that no build used for so long, and what cut-off ones left; returns the bytes freed."""
    before = list_conversions(cache)[1]
    for folder in (cache / FOLDER).glob("*"):
        outcome = folder / _OUTCOME
        if now_s - (outcome if outcome.is_file() else folder).stat().st_mtime >= unused_s:
            shutil.rmtree(folder, ignore_errors=True)
    return before - list_conversions(cache)[1]
