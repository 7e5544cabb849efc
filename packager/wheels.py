"""The wheels of a step's python environment: resolved for its target, locked, and carried in the bundle.

A pin that has no wheel for the target is an error that names the nearest version that has one; with
`requirements = "compatible"` that version is taken, and said. What was chosen stands in `edgepack.lock`: a second
run asks no index. The machine that packages proves the step with wheels of the same versions for itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from arch.catalog import Catalog
from arch.target import Target, host_target
from arch.traits import Traits, traits_of
from buildx.lock import LockedStep, LockedTarget, LockedWheel, LockFile
from buildx.report import Quiet, Report
from buildx.resolve import nearest_versions, offers_of
from buildx.wheels import Wheels
from bundle.pipeline import wheel_path
from edgepack.errors import BadInput
from packager.requirements import applies, name_of, pinned_version, repinned

_CPU_BUILDS = {"xgboost": "xgboost-cpu"}  # package → the same without what accelerators need; same modules, same files

Mode = Literal["exact", "compatible"]


@dataclass(frozen=True)
class Environment:
    """The wheels of one step on one target. `changes` says which pins had to give way, a line each."""

    step: str
    target: Target
    python: str
    wheels: tuple[LockedWheel, ...]
    paths: tuple[Path, ...]
    changes: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, Path]:
        """Each wheel's place in the bundle, and the file on this machine."""
        return {
            wheel_path(self.step, wheel.filename): path for wheel, path in zip(self.wheels, self.paths, strict=True)
        }

    @property
    def size_bytes(self) -> int:
        """What all wheels take together."""
        return sum(wheel.size for wheel in self.wheels)


@dataclass(frozen=True)
class Told:
    """A `Report` that hands on to two functions."""

    step: Callable[[str], None]
    notice: Callable[[str], None]


@dataclass(frozen=True)
class WheelSource:
    """Where wheels come from: `local` is a folder of wheels that win over the index, `frozen` refuses to resolve what
    the lock does not hold. `report` is told what is resolved and fetched.
    """

    local: Path | None = None
    frozen: bool = False
    report: Report = field(default_factory=Quiet)


class StepWheels:
    """Environments of a project's steps, by way of its lock and the user's cache, for the targets of a catalog."""

    def __init__(
        self,
        project: Path,
        cache: Path,
        source: WheelSource | None = None,
        environ: Mapping[str, str] | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        source = source or WheelSource()
        self._catalog = catalog or Catalog.read()
        self._environ = os.environ if environ is None else environ
        self._local, self._frozen = source.local, source.frozen
        self._lock_file = LockFile(project, cache, source.report)
        folder = cache / "wheels"
        self._wheels = Wheels(folder, source.report, self._environ, local=source.local, frozen=source.frozen)
        self._unlocked = Wheels(folder, source.report, self._environ, local=source.local)

    def obtain(self, step: str, asked: Sequence[str], mode: Mode, target: Target) -> Environment:
        """The wheels of a step for a target. Raises BadInput for a pin without a wheel, and where nothing fits."""
        lock, traits = self._lock_file.read(), self._traits(target)
        locked = lock.step.get(step, {}).get(str(target))
        if locked is not None and not _fits(locked, asked, mode, traits):
            if self._frozen:
                raise BadInput(f"--locked: edgepack.lock was made for other requirements of step '{step}'")
            locked = None
        if locked is None:
            requirements, changes = self._resolvable(step, asked, mode, traits)
        else:
            requirements, changes = locked.requirements, locked.changes
        known = LockedTarget(locked.python, locked.requirements, locked.wheels, [], locked.glibc) if locked else None
        found, paths = self._wheels.obtain(traits, requirements, known)
        new = LockedStep(found.python, list(asked), list(found.requirements), changes, found.wheels, found.glibc)
        if new != locked:
            self._lock_file.write(lock.with_step(step, str(target), new))
        return Environment(step, target, found.python, tuple(found.wheels), tuple(paths), tuple(changes))

    def is_locked(self, step: str, asked: Sequence[str], mode: Mode, target: Target) -> bool:
        """Whether the lock has a step's wheels for a target, and for what is asked for now."""
        locked = self._lock_file.read().step.get(step, {}).get(str(target))
        return locked is not None and _fits(locked, asked, mode, self._traits(target))

    def _traits(self, target: Target) -> Traits:
        """A target as a step sees it: nothing is left out of its wheels, because it sees nothing of the base's."""
        return replace(self._catalog.traits(target), exclude=(), brings=())

    def for_this_machine(self, step: str, proven: Environment) -> Environment:
        """The same versions for the interpreter that runs this program: what a trial runs in."""
        traits = host_traits()
        if (proven.target, proven.python) == (traits.target, traits.python):
            return proven
        return self.alone_here(step, [f"{wheel.name}=={wheel.version}" for wheel in proven.wheels], "compatible")

    def alone_here(self, step: str, asked: Sequence[str], mode: Mode) -> Environment:
        """A step's wheels for the interpreter that runs this program; the lock is not asked. Raises as `obtain`."""
        traits = host_traits()
        requirements, changes = self._resolvable(step, asked, mode, traits)
        found, paths = self._unlocked.obtain(traits, requirements, None)
        return Environment(step, traits.target, found.python, tuple(found.wheels), tuple(paths), tuple(changes))

    def _resolvable(self, step: str, asked: Sequence[str], mode: Mode, traits: Traits) -> tuple[list[str], list[str]]:
        """Lines whose pins all have a wheel, and what was changed. Raises BadInput for the first pin without one."""
        lines, changes = [], []
        usual = [self._cpu_build(line, traits) for line in asked if applies(line, traits.python, traits.machine)]
        pins = {name_of(line): version for line in usual if (version := pinned_version(line)) is not None}
        if self._have_wheels(traits, pins):  # asked in one go, because each question takes half a second
            return usual, []
        for line in usual:
            version = pinned_version(line)
            if version is None or self._have_wheels(traits, {name_of(line): version}):
                lines.append(line)
                continue
            nearest = self._nearest(step, traits, line, version)
            where = f"Python {traits.python} on {traits.target}"
            if mode == "exact":
                raise BadInput(
                    f"step '{step}' asks for '{line}', which has no wheel for {where}: the nearest version that has "
                    f'one is {nearest}: write that, or set requirements = "compatible" to have it taken',
                    field="steps.requirements",
                )
            lines.append(repinned(line, nearest))
            changes.append(f"{name_of(line)} {nearest} instead of {version}, which has no wheel for {where}")
        return lines, changes

    def _cpu_build(self, line: str, traits: Traits) -> str:
        """The package's build without accelerators where the target has none and that build has the version."""
        other = _CPU_BUILDS.get(name_of(line))
        if other is None or traits.target.accel != "none":
            return line
        version = pinned_version(line)
        named = line.replace(name_of(line), other, 1)
        return named if version is None or self._have_wheels(traits, {other: version}) else line

    def _have_wheels(self, traits: Traits, pins: Mapping[str, str]) -> bool:
        """Whether exactly these versions all have a wheel for a target."""
        try:
            return len(offers_of(traits, pins, self._local, self._environ)) == len(pins) if pins else True
        except BadInput:
            return False

    def _nearest(self, step: str, traits: Traits, line: str, version: str) -> str:
        below, above = nearest_versions(traits, name_of(line), version, self._local, self._environ)
        found = [each for each in (above, below) if each is not None]
        if not found:
            raise BadInput(
                f"step '{step}' asks for '{line}', of which no version has a wheel for Python {traits.python} on "
                f"{traits.target}: is the name right, and the index reachable?",
                field="steps.requirements",
            )
        return min(found, key=lambda each: _distance(each, version))


def host_traits() -> Traits:
    """The target of this machine, with the interpreter that runs this program."""
    traits = traits_of(host_target())
    return replace(traits, python=f"{sys.version_info.major}.{sys.version_info.minor}")


def versions(environments: Iterable[Environment]) -> dict[str, str]:
    """Package → version over several environments, for a report; all versions where they differ."""
    found: dict[str, set[str]] = {}
    for environment in environments:
        for wheel in environment.wheels:
            found.setdefault(wheel.name, set()).add(wheel.version)
    return {name: ", ".join(sorted(each)) for name, each in sorted(found.items())}


def _fits(locked: LockedStep, asked: Sequence[str], mode: Mode, traits: Traits) -> bool:
    same = locked.asked == list(asked) and locked.python == traits.python
    return same and (mode == "compatible" or not locked.changes)


def _distance(one: str, other: str) -> tuple[int, ...]:
    """How far apart two versions are: major first, then minor, then the rest."""
    try:
        first, second = (list(Version(each).release) for each in (one, other))
    except InvalidVersion:
        return (1 << 30,)
    length = max(len(first), len(second))
    padded = [each + [0] * (length - len(each)) for each in (first, second)]
    return tuple(abs(a - b) for a, b in zip(*padded, strict=True))
