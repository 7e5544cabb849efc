"""What all frameworks share whose models are converted: an environment, a conversion in it, the gate, a runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from columns.schema import Schema
from edgepack.errors import BadInput, RuntimeFailed
from packager import gate
from packager.checks import Checklist
from packager.conversion import Program, convert
from packager.environments import Environment, Recipe, ready
from packager.frameworks.outcome import Asked, Outcome, Proven, kept_outcome
from packager.project import GoldenSource, StepSource
from packager.synthetic import user_rows

Fields = tuple[Schema | None, Schema | None]


@dataclass(frozen=True)
class Candidate:
    """A model that may become native: where it lies, its form and digest, what converts it and in which environment."""

    path: Path
    form: str
    digest: str
    recipe: Recipe
    program: Program
    rows: Sequence[Mapping[str, Any]] = ()  # that are asked beside the user's
    has_worker: bool = False  # it runs in a worker as it is, also where the child that was to prove it crashed or hung


class Unproven(Exception):
    """The child crashed or hung that was to prove a candidate which runs in a worker as it is; the message says how."""


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate: its outcome, the folder of the outcome's files, the environment that gave it."""

    outcome: Outcome
    folder: Path
    environment: Environment


def declared_fields(source: StepSource, framework: str) -> Fields:
    """The fields that the project gives. Raises BadInput for `tensor_fields`, which rename ONNX and TFLite inputs."""
    if source.tensor_fields:
        raise BadInput(
            f"step '{source.name}' has tensor_fields: framework '{framework}' names its fields in [steps.input]",
            field="steps.tensor_fields",
        )
    return (
        None if source.input is None else Schema.parse(source.input),
        None if source.output is None else Schema.parse(source.output),
    )


def environment_of(recipe: Recipe, source: StepSource, checklist: Checklist, cache: Path) -> Environment:
    """The environment of a recipe for a step; the checklist hears what is made, and how far that is. Raises as `ready`
    does.
    """
    notice, progress = checklist.notice, checklist.progress
    return ready(recipe, cache, os.environ, notice=notice, progress=progress, wheels=source.wheels)


def checked_environment(recipe: Recipe, source: StepSource, checklist: Checklist, cache: Path) -> Environment:
    """The same as a named check. Raises BadInput where it fails."""
    environment: Environment | None = None
    with checklist.check("model.environment") as found:
        environment = environment_of(recipe, source, checklist, cache)
        found.append(f"'{environment.kept.title}', Python {environment.kept.python}")
    checklist.require()
    assert environment is not None  # noqa: S101 - the check has passed
    return environment


def prove(source: StepSource, candidate: Candidate, declared: Fields, checklist: Checklist, cache: Path) -> Verdict:
    """Convert a candidate and prove it, as two named checks. Raises BadInput when one of them fails, Unproven where
    that leads to its worker.
    """
    environment = checked_environment(candidate.recipe, source, checklist, cache)
    kept: tuple[Path, Outcome] | None = None
    lost = ""
    with checklist.check("model.converts") as found:
        try:
            kept = _converted(source, candidate, environment, declared, cache)
        except RuntimeFailed as error:
            if not candidate.has_worker:
                raise
            lost = str(error)
        is_native, reason = (kept[1].is_native, kept[1].reason) if kept else (False, lost)
        found += [f"runtime {'onnx' if is_native else 'python'}", *([reason] if reason else [])]
    checklist.require()
    if lost:
        raise Unproven(lost)
    assert kept is not None  # noqa: S101 - the check has passed
    if not kept[1].lasts:
        checklist.notice(
            f"model '{source.model.name}' did not answer its trial in time, so runtime "
            f"{'onnx' if kept[1].is_native else 'python'} is for this build alone: build again when this machine is "
            "less busy"
        )
    return Verdict(kept[1], kept[0], environment)


def _converted(
    source: StepSource, candidate: Candidate, environment: Environment, declared: Fields, cache: Path
) -> tuple[Path, Outcome]:
    """The folder with the outcome, and what it says."""
    golden = source.golden or GoldenSource(None, Path())
    given = user_rows(golden, *declared)
    rows = [*(given or ()), *candidate.rows] or None

    def asked_now(folder: Path) -> Proven:
        found = convert(
            candidate.path,
            candidate.form,
            environment,
            folder,
            inputs=declared[0],
            outputs=declared[1],
            rows=rows,
            program=candidate.program,
        )
        return Proven(found, gate.choose(found.attempts, golden.tolerance, candidate.program.trial_s))

    asked = Asked(candidate.digest, candidate.form, candidate.program, environment, declared, rows, golden.tolerance)
    return kept_outcome(source.model.name, asked, cache, asked_now)
