"""The environments of a pipeline's python steps: for each target that is packaged for, and for the trial on this
machine.

A step is the same on all targets of a bundle, its interpreter included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from arch.target import Target, host_target
from arch.traits import traits_of
from bundle.pipeline import PipelineSpec, StepSpec
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.requirements import name_of
from packager.wheels import Environment, StepWheels, host_traits


@dataclass(frozen=True)
class StepEnvironments:
    """What was resolved. `steps` are all steps, those with a worker completed.

    `wheels` are files in the bundle of each target, `trial` those for this machine, whose Python is `trial_python`.
    """

    steps: list[ModelArtifact]
    targets: list[Target]
    wheels: dict[Target, dict[str, Path]] = field(default_factory=dict)
    trial: dict[str, Path] = field(default_factory=dict)
    trial_python: str = ""
    notes: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)

    def for_trial(self, spec: PipelineSpec) -> PipelineSpec:
        """The spec as this machine can run it: the same, with the interpreter that runs this program."""
        return msgspec.structs.replace(spec, steps=[self._for_trial(step) for step in spec.steps])

    def _for_trial(self, step: StepSpec) -> StepSpec:
        if step.worker:
            worker = msgspec.structs.replace(step.worker, python=self.trial_python)
            step = msgspec.structs.replace(step, worker=worker)
        if step.routing:
            models = {name: self._for_trial(model) for name, model in step.routing.models.items()}
            step = msgspec.structs.replace(step, routing=msgspec.structs.replace(step.routing, models=models))
        return step


def resolve_environments(
    steps: Sequence[ModelArtifact],
    targets: Iterable[Target],
    wheels: StepWheels,
    checklist: Checklist,
    *,
    here: bool = False,
) -> StepEnvironments:
    """Resolve, lock and fetch the wheels of every step that has a worker, each step as a named check.

    With `here` the bundle is for this machine alone, and for the interpreter that runs this program. Raises BadInput
    for a requirement without a wheel, and for targets of several Pythons.
    """
    wanted = sorted(set(targets))
    if not any(step.kind for step in steps):
        return StepEnvironments(list(steps), wanted)
    _check_one_python(wanted)
    found: dict[str, dict[Target, Environment]] = {}
    trial: dict[str, Environment] = {}
    for step in (step for step in steps if step.kind):
        with checklist.check("model.wheels") as told:
            name, mode = step.source.name, step.source.requirements
            found[name] = {target: wheels.obtain(name, step.requirements, mode, target) for target in wanted}
            first = found[name].get(host_target()) or next(iter(found[name].values()))
            trial[name] = wheels.for_this_machine(name, first)
            told.append(f"{len(first.wheels)} wheels, {first.size_bytes / 1e6:.1f} MB")
    checklist.require()
    python = host_traits().python if here else traits_of(wanted[0]).python
    return StepEnvironments(
        steps=[step.with_worker(python, _pins(step, found[step.source.name])) if step.kind else step for step in steps],
        targets=wanted,
        wheels={
            target: _files(trial.values() if here else (each[target] for each in found.values())) for target in wanted
        },
        trial=_files(trial.values()),
        trial_python=host_traits().python,
        notes=tuple(change for each in found.values() for one in each.values() for change in one.changes),
        report={name: _told(each) for name, each in found.items()},
    )


def _check_one_python(targets: list[Target]) -> None:
    """A step's code and wheels are for one Python, on all targets of a bundle."""
    if not targets:
        raise BadInput("a bundle needs at least one target: give --target x86 or --target arm")
    first = targets[0]
    for target in targets:
        if traits_of(target).python != traits_of(first).python:
            raise BadInput(
                f"{first} has Python {traits_of(first).python}, {target} has {traits_of(target).python}: steps with "
                "wheels of their own are packaged for one Python, give these targets one by one"
            )


def _files(environments: Iterable[Environment]) -> dict[str, Path]:
    return {path: file for environment in environments for path, file in environment.files.items()}


def _pins(step: ModelArtifact, environments: dict[Target, Environment]) -> tuple[str, ...]:
    """What was asked for with the version that was taken, where that is the same on all targets."""
    pins = []
    for line in step.requirements:
        taken = {
            wheel.version
            for environment in environments.values()
            for wheel in environment.wheels
            if wheel.name in (name_of(line), f"{name_of(line)}-cpu")
        }
        pins.append(f"{name_of(line)}=={taken.pop()}" if len(taken) == 1 else line)
    return tuple(pins)


def _told(environments: dict[Target, Environment]) -> dict[str, Any]:
    """What the parity report says of a step's wheels."""
    return {
        str(target): {
            "python": environment.python,
            "wheels": {wheel.name: wheel.version for wheel in environment.wheels},
            "changes": list(environment.changes),
        }
        for target, environment in environments.items()
    }
