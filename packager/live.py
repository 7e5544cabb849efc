"""Models that change where they lie, for whoever serves them meanwhile: what is there, and bundles of it.

Two kinds: a project with a program (a Cortex API), whose bundle holds all of its models; and plain models in version
folders, each version a bundle of its own. What is written on the way lies in a folder of ours, never among the models.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bundle.model_folders import Found, files_in, kind_of, mark_of, only_file, versions_of
from bundle.pipeline import LogPolicy, Resources, legal_name
from edgepack.errors import BadInput
from oci.layout import write_layout
from packager.archives import is_junk
from packager.dialects.cortex import remote_marks
from packager.dialects.cortex_api import FILE
from packager.dialects.cortex_disk import Disk
from packager.dialects.cortex_layout import is_cortex, is_models_folder
from packager.package import Packaged
from packager.project import GoldenSource, Project, StepSource
from runtimes.protocol import ModelAbsent

Make = Callable[[Project], Packaged]


class LiveSource(ABC):
    """Models that may change, and how they are packaged. `make` proves a bundle and writes it below `work`."""

    def __init__(self, source: Path, package: Make, work: Path) -> None:
        self.source, self._package, self._work = source, package, work
        self._numbers = itertools.count()

    removes = True  # what is taken away answers no more

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.name

    @abstractmethod
    def look(self) -> Found:
        """See what is there. Raises BadInput or OSError where that is not possible."""

    def projects(self) -> list[Project]:
        """What is to be packaged at the start: the highest version of each model. Raises BadInput."""
        found = self.look()
        if found.faults:
            raise BadInput(next(iter(found.faults.values())))
        return [self.project(name, max(marks, key=lambda each: int(each or 0))) for name, marks in found.marks.items()]

    @abstractmethod
    def project(self, name: str, number: str) -> Project:
        """One version as a project."""

    def make(self, name: str, number: str) -> Path:
        """Package one version; returns an OCI layout folder. Raises EdgepackError that says why it is no model."""
        folder = self._work / f"{name}-{next(self._numbers)}"
        write_layout(self._package(self.project(name, number)).index, folder)
        return folder


class LiveProgram(LiveSource):
    """A program with its models, as one project: with as many of them as its `disk_cache_size` allows."""

    def __init__(self, source: Path, package: Make, work: Path) -> None:
        super().__init__(source, package, work)
        self._disk = Disk(work / "objects")

    def look(self) -> Found:
        """See what is there: its files, and objects of the stores that it names."""
        project = Project.open(self.source)
        return Found({project.name: {"": f"{mark_of(self.source)} {remote_marks(self.source)}"}})

    def project(self, name: str, number: str) -> Project:
        """The project as it is now."""
        project = Project.open(self.source)
        return replace(project, steps=tuple(replace(step, disk=self._disk) for step in project.steps))

    def make(self, name: str, number: str) -> Path:
        """See LiveSource."""
        there, known = self._disk.there, self._disk.known
        try:
            return super().make(name, number)
        except BaseException:
            self._disk.there, self._disk.known = there, known
            raise
        finally:
            self._disk.asked = None

    def bring(self, name: str, absent: ModelAbsent) -> Path:
        """As `make`, with a model that the bundle before leaves out, and without those least recently used."""
        used = [*reversed(absent.used), *self._disk.there, *sorted(absent.there)]
        self._disk.there = tuple(key for key in dict.fromkeys(used) if key in absent.there)
        self._disk.asked = (absent.model, absent.version)
        return self.make(name, "")


class LiveVersions(LiveSource):
    """Plain models: one in version folders, or a folder of several, which it stays whatever comes into it."""

    def __init__(self, source: Path, package: Make, work: Path, *, several: bool) -> None:
        super().__init__(source, package, work)
        self._several = several

    def look(self) -> Found:
        """See what is there; a model that is laid out wrongly does not hold up the others."""
        folders, faults = self._folders()
        marks: dict[str, dict[str, str]] = {}
        for name, folder in folders.items():
            try:
                marks[name] = {number: _mark(folder, place) for number, place in _places(name, folder).items()}
            except BadInput as error:
                faults[name] = str(error)
        return Found(marks, faults)

    def project(self, name: str, number: str) -> Project:
        """One version; its golden rows and lock are kept in our folder."""
        folders, faults = self._folders()
        if name in faults:
            raise BadInput(faults[name])
        folder = folders.get(name)
        place = None if folder is None else _places(name, folder).get(number)
        if folder is None or place is None:
            raise BadInput(f"model '{name}' has no version {number} any more")
        own = self._work / "kept" / name
        golden = _golden(own, number, folder, place)
        step = StepSource(name, place, golden=golden)
        notes = () if folder.name == name else (f"'{folder.name}' is not a DNS label: called '{name}' here",)
        return Project(own, name, (step,), golden, {}, LogPolicy(), Resources(), notes, int(number))

    def _folders(self) -> tuple[dict[str, Path], dict[str, str]]:
        """The folder of each model by the name that it has as a pipeline; and the names that several would have.

        Those have no folder, so that what they held goes on.
        """
        if not self.source.is_dir():
            raise BadInput(f"'{self.source}' is not there: expected a folder of models")
        if not self._several:
            return {legal_name(self.source.name): self.source}, {}
        found: dict[str, list[Path]] = {}
        for folder in sorted(each for each in self.source.iterdir() if each.is_dir() and not is_junk(each.name)):
            if not folder.name.startswith("."):
                found.setdefault(legal_name(folder.name), []).append(folder)
        faults = {
            name: f"'{one.name}' and '{other.name}' would both be called '{name}': rename one"
            for name, (one, other, *_) in ((name, each) for name, each in found.items() if len(each) > 1)
        }
        return {name: each[0] for name, each in found.items() if name not in faults}, faults


def live_source(source: Path, package: Make, work: Path) -> LiveSource | None:
    """What follows a SOURCE, None for one whose models do not change by themselves. Raises BadInput."""
    if source.is_dir() and (source / "edgepack.toml").is_file():
        return None
    if is_models_folder(source):
        return LiveVersions(source, package, work, several=True)
    if not source.is_dir() or not is_cortex(source):
        return None
    if (source / FILE).is_file():
        return LiveProgram(source, package, work)
    return LiveVersions(source, package, work, several=False)


def _mark(folder: Path, place: Path) -> str:
    """What changes when a version of the model in a folder does, or the rows that the user gives for the model."""
    given = _given_rows(folder)
    return mark_of(place) + (mark_of(given) if given.is_file() else "")


def _given_rows(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.golden.json")


def _golden(own: Path, number: str, folder: Path, place: Path) -> GoldenSource:
    """The golden rows of a version: made ones are kept as long as nothing of it changes, for then they may not fit."""
    own.mkdir(parents=True, exist_ok=True)
    kept = own / f"{number}-{hashlib.sha256(_mark(folder, place).encode()).hexdigest()[:16]}.golden.json"
    for former in own.glob(f"{number}-*.golden.json"):
        if former != kept:
            former.unlink(missing_ok=True)
    given = (each for each in (kept, _given_rows(folder)) if each.is_file())
    return GoldenSource(next(given, None), kept)


def _places(name: str, folder: Path) -> dict[str, Path]:
    """Each version of a model by number: a folder, or the file that it is. Raises BadInput as `versions_of`."""
    files = files_in(folder)
    kind = kind_of(name, files)
    found = versions_of(name, "", files, kind)
    if kind == "python":
        return {number: only_file(name, place, files) for number, place in found.places.items()}
    return {number: folder / place for number, place in found.places.items()}
