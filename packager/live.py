"""Models that change where they lie, for whoever serves them meanwhile: what is there, and bundles of it.

Two kinds: a project with a program (a Cortex API), whose bundle holds all of its models; and plain models in version
folders, each version a bundle of its own. What is written on the way lies in a folder of ours, never among the models.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundle.model_folders import files_in, kind_of, mark_of, only_file, versions_of
from bundle.pipeline import LogPolicy, Resources, legal_name
from edgepack.errors import BadInput
from oci.layout import write_layout
from packager.archives import is_junk
from packager.dialects.cortex import remote_marks
from packager.dialects.cortex_api import FILE
from packager.dialects.cortex_layout import is_cortex, is_models_folder
from packager.package import Packaged
from packager.project import GoldenSource, Project, StepSource

Make = Callable[[Project], Packaged]


@dataclass(frozen=True)
class Found:
    """What is there: model → number → mark, and by model why it cannot be read. A program has no number."""

    marks: Mapping[str, Mapping[str, str]]
    faults: Mapping[str, str] = field(default_factory=dict)


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
    """A program with its models, as one project."""

    def look(self) -> Found:
        """See what is there: its files, and objects of the stores that it names."""
        project = Project.open(self.source)
        return Found({project.name: {"": f"{mark_of(self.source)} {remote_marks(self.source)}"}})

    def project(self, name: str, number: str) -> Project:
        """The project as it is now."""
        return Project.open(self.source)


class LiveVersions(LiveSource):
    """Plain models: one in version folders, or a folder of several, which it stays whatever comes into it."""

    def __init__(self, source: Path, package: Make, work: Path, *, several: bool) -> None:
        super().__init__(source, package, work)
        self._several = several

    def look(self) -> Found:
        """See what is there; a model that is laid out wrongly does not hold up the others."""
        marks: dict[str, dict[str, str]] = {}
        faults: dict[str, str] = {}
        for name, folder in self._folders(faults).items():
            try:
                marks[name] = {number: mark_of(place) for number, place in _places(name, folder).items()}
            except BadInput as error:
                faults[name] = str(error)
        return Found(marks, faults)

    def project(self, name: str, number: str) -> Project:
        """One version; its golden rows and lock are kept in our folder."""
        folder = self._folders({}).get(name)
        place = None if folder is None else _places(name, folder).get(number)
        if folder is None or place is None:
            raise BadInput(f"model '{name}' has no version {number} any more")
        own = self._work / "kept" / name
        own.mkdir(parents=True, exist_ok=True)
        kept = own / f"{number}.golden.json"
        given = (each for each in (kept, folder.with_name(f"{folder.name}.golden.json")) if each.is_file())
        golden = GoldenSource(next(given, None), kept)
        step = StepSource(name, place, golden=golden)
        return replace(Project(own, name, (step,), golden, {}, LogPolicy(), Resources()), number=int(number))

    def _folders(self, faults: dict[str, str]) -> dict[str, Path]:
        """The folder of each model by the name that it has as a pipeline."""
        if not self.source.is_dir():
            raise BadInput(f"'{self.source}' is not there: expected a folder of models")
        if not self._several:
            return {legal_name(self.source.name): self.source}
        found: dict[str, Path] = {}
        for folder in sorted(each for each in self.source.iterdir() if each.is_dir() and not is_junk(each.name)):
            if folder.name.startswith("."):
                continue
            other = found.setdefault(name := legal_name(folder.name), folder)
            if other is not folder:
                faults[name] = f"'{other.name}' and '{folder.name}' would both be called '{name}': rename one"
        return found


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


def _places(name: str, folder: Path) -> dict[str, Path]:
    """Each version of a model by number: a folder, or the file that it is. Raises BadInput as `versions_of`."""
    files = files_in(folder)
    kind = kind_of(name, files)
    found = versions_of(name, "", files, kind)
    if kind == "python":
        return {number: only_file(name, place, files) for number, place in found.places.items()}
    return {number: folder / place for number, place in found.places.items()}
