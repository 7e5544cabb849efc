"""The environments of a pipeline's python steps: for each target that is packaged for, and for the trial on this
machine.

Each target has wheels for its own Python, and a spec that says which. What a target's part of a bundle is does not
depend on the other targets: an image is the same whatever was built beside it (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arch.target import Target, host_target
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.requirements import name_of
from packager.wheels import Environment, StepWheels


@dataclass(frozen=True)
class StepEnvironments:
    """What was resolved, by step and target; `trial` is that of each step for this machine.

    `left_out` are targets that nobody asked for and that some step has no wheels for, with the reason.
    """

    models: list[ModelArtifact]
    targets: list[Target]
    found: Mapping[str, Mapping[Target, Environment]] = field(default_factory=dict)
    trial: Mapping[str, Environment] = field(default_factory=dict)
    left_out: Mapping[Target, str] = field(default_factory=dict)
    here: bool = False

    def steps(self, target: Target) -> list[ModelArtifact]:
        """All models as they run on a target, those with a worker completed."""
        return self._completed(lambda step: self.trial[step] if self.here else self.found[step][target])

    @property
    def trial_steps(self) -> list[ModelArtifact]:
        """All models as they run on this machine, in the interpreter that runs this program."""
        return self._completed(lambda step: self.trial[step])

    @property
    def wheels(self) -> dict[Target, dict[str, Path]]:
        """The files in the bundle of each target."""
        return {
            target: _files(self.trial.values() if self.here else (each[target] for each in self.found.values()))
            for target in self.targets
        }

    @property
    def trial_wheels(self) -> dict[str, Path]:
        """The files of a bundle that this machine can run."""
        return _files(self.trial.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: pins that gave way, and targets that were left out."""
        changes = (change for each in self.found.values() for one in each.values() for change in one.changes)
        dropped = (f"the bundle has nothing for {target}: {reason}" for target, reason in self.left_out.items())
        idle = (
            note
            for step, each in self.found.items()
            for target, one in each.items()
            for note in _idle(step, target, one)
        )
        return (*dict.fromkeys(changes), *dropped, *idle)

    @property
    def report(self) -> dict[str, Any]:
        """What the parity report says of each step's wheels."""
        return {name: _told(each) for name, each in self.found.items()}

    def _completed(self, chosen: Callable[[str], Environment]) -> list[ModelArtifact]:
        return [_with_worker(model, chosen(model.source.name)) if model.kind else model for model in self.models]


def resolve_environments(
    models: Sequence[ModelArtifact],
    targets: Iterable[Target],
    wheels: StepWheels,
    checklist: Checklist,
    *,
    asked: Iterable[Target] | None = None,
    here: bool = False,
) -> StepEnvironments:
    """Resolve, lock and fetch the wheels of every model that has a worker, each model as a named check.

    Of the targets, those that were `asked` for must have them (default: all); another one is left out where it has
    none. With `here` the bundle is for this machine alone, and for the interpreter that runs this program. Raises
    BadInput for a requirement without a wheel.
    """
    wanted = sorted(set(targets))
    if not any(model.kind for model in models):
        return StepEnvironments(list(models), wanted)
    if not wanted:
        raise BadInput("a bundle needs at least one target: give --target x86 or --target arm")
    must = set(wanted if asked is None else asked)
    found: dict[str, dict[Target, Environment]] = {}
    trial: dict[str, Environment] = {}
    left_out: dict[Target, str] = {}
    for model in (model for model in models if model.kind):
        with checklist.check("model.wheels") as told:
            name = model.source.name
            try:
                found[name] = _obtained(model, wanted, must, wheels, left_out)
                first = found[name].get(host_target()) or next(iter(found[name].values()))
                trial[name] = wheels.for_this_machine(name, first)
            except BadInput:
                if not here:
                    raise
                # what another Python would need may be missing where nothing but this one is asked for
                first = trial[name] = _alone_here(model, wheels)
                found[name] = dict.fromkeys(wanted, first)
            told.append(f"{len(first.wheels)} wheels, {first.size_bytes / 1e6:.1f} MB")
    checklist.require()
    kept = [target for target in wanted if target not in left_out]
    found = {name: {target: each[target] for target in kept} for name, each in found.items()}
    return StepEnvironments(list(models), kept, found, trial, left_out, here)


def _obtained(
    model: ModelArtifact, wanted: Sequence[Target], must: set[Target], wheels: StepWheels, left_out: dict[Target, str]
) -> dict[Target, Environment]:
    """A model's environment on each target. What the lock has is there again, or it is an error: a bundle must not
    lose a target because an index is away.
    """
    name, found = model.source.name, {}
    asked, mode = model.requirements, model.source.requirements
    for target in (each for each in wanted if each not in left_out):
        try:
            found[target] = _fitting(wheels.obtain(name, asked, mode, target), model, target)
        except BadInput as error:
            if target in must or wheels.is_locked(name, asked, mode, target):
                raise
            left_out[target] = str(error)
    return found


def _alone_here(model: ModelArtifact, wheels: StepWheels) -> Environment:
    """A model's environment in the interpreter that runs this program, whatever its targets have."""
    environment = wheels.alone_here(model.source.name, model.requirements, model.source.requirements)
    return _fitting(environment, model, environment.target)


def _idle(step: str, target: Target, environment: Environment) -> list[str]:
    """A note for wheels of NVIDIA's that a target without an accelerator carries for nothing: gigabytes, at times."""
    found = [wheel for wheel in environment.wheels if wheel.name.startswith("nvidia-")]
    if not found or target.accel != "none":
        return []
    return [
        f"step '{step}' on {target} carries {len(found)} wheels for NVIDIA's accelerators, which it has not: "
        f"{environment.size_bytes / 1e6:.0f} MB of wheels in all; put the builds for the CPU alone into a folder and "
        "name it with --wheels"
    ]


def _fitting(environment: Environment, model: ModelArtifact, target: Target) -> Environment:
    if model.python not in (None, environment.python):
        raise BadInput(
            f"step '{model.source.name}' was made with Python {model.python} and holds code compiled for it: {target} "
            f"has Python {environment.python}, make it with that"
        )
    return environment


def _with_worker(model: ModelArtifact, environment: Environment) -> ModelArtifact:
    """A model with the environment it runs in: its Python, and what was asked for with the versions that were taken."""
    taken = {wheel.name: wheel.version for wheel in environment.wheels}
    pins = []
    for line in model.requirements:
        name = name_of(line)
        version = taken.get(name) or taken.get(f"{name}-cpu")
        pins.append(f"{name}=={version}" if version else line)
    return model.with_worker(environment.python, tuple(pins))


def _files(environments: Iterable[Environment]) -> dict[str, Path]:
    return {path: file for environment in environments for path, file in environment.files.items()}


def _told(environments: Mapping[Target, Environment]) -> dict[str, Any]:
    """What the parity report says of a step's wheels."""
    return {
        str(target): {
            "python": environment.python,
            "wheels": {wheel.name: wheel.version for wheel in environment.wheels},
            "changes": list(environment.changes),
        }
        for target, environment in environments.items()
    }
