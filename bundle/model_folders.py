"""Models as Cortex lays them out: a folder with one model, or integer version folders, the highest of which is latest.

Only names are looked at, and where a SavedModel comes from. A model without versions has the version 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bundle.pipeline import PipelineSpec
from edgepack.errors import BadInput

BASE = "base"  # of a predictor's options: the manifest of the bundle that it was made of on a device
SAVED_MODEL = "saved_model.pb"
ONLY = "1"  # the version of a model without version folders
MOST_VERSIONS = 1000
_MOST_DIGITS = 18  # of a version: it fits 64 bits
_LEFT = ("__pycache__", "__MACOSX")
_NEURON = (b"NeuronOp", b"AwsNeuron")  # operators that the compiler for AWS Inferentia writes
_SEARCHED = 64 << 20  # bytes of a SavedModel's graph


@dataclass(frozen=True)
class Versions:
    """A model: its name, and its versions by integer, each a folder as a path inside the project."""

    name: str
    places: Mapping[str, str]

    @property
    def latest(self) -> str:
        """The highest version."""
        return max(self.places, key=int)


@dataclass(frozen=True)
class Found:
    """What was seen of models that may change: model → number → mark, and by model why it cannot be read. What has no
    versions, as a program, has an empty number.
    """

    marks: Mapping[str, Mapping[str, str]]
    faults: Mapping[str, str] = field(default_factory=dict)


def base_of(spec: PipelineSpec, manifest: str) -> str:
    """The manifest that was installed: a bundle's own, or that of the one which it was made of on a device."""
    worker = spec.steps[0].worker
    return str(worker.options.get(BASE, manifest)) if worker is not None else manifest


def versions_of(name: str, folder: str, files: Mapping[str, Path], kind: str) -> Versions:
    """The versions of the model in a folder of a project; `files` are the project's by their path, `kind` the
    predictor's type. Raises BadInput that names the path at fault.
    """
    inside = _below(folder, files)
    if not inside:
        raise BadInput(f"model '{name}' has no files: expected a model or version folders")
    tops = {PurePosixPath(each).parts[0] for each in inside}
    folders = {top for top in tops if top not in inside}
    if not any(is_version(each) for each in folders):
        _check_bare(name, folders, inside, kind)
        _check_model(name, folder, files, kind)
        return Versions(name, {ONLY: folder})
    wrong = sorted(each for each in tops if each not in folders or not is_version(each))
    if wrong:
        raise BadInput(
            f"model '{name}': '{wrong[0]}' lies beside version folders and is no integer: expected folders such as 1 "
            "or 1623423423 alone"
        )
    if len(folders) > MOST_VERSIONS:
        raise BadInput(f"model '{name}' has {len(folders)} versions: expected at most {MOST_VERSIONS}")
    places = {each: str(PurePosixPath(folder, each)) for each in sorted(folders, key=int)}
    for place in places.values():
        _check_model(name, place, files, kind)
    return Versions(name, places)


def models_in(folder: str, files: Mapping[str, Path], kind: str) -> list[Versions]:
    """The models of a `models.dir`: each of its folders is one. Raises BadInput where it has none."""
    inside = _below(folder, files)
    names = sorted({PurePosixPath(each).parts[0] for each in inside if "/" in each})
    if not names:
        raise BadInput(f"models.dir '{folder}' has no folders: expected one a model")
    return [versions_of(name, str(PurePosixPath(folder, name)), files, kind) for name in names]


def is_version(name: str) -> bool:
    """Whether a folder's name is a version: an integer as it is written, `7` and not `07`."""
    return name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS and str(int(name)) == name


def kind_of(name: str, files: Mapping[str, Path]) -> str:
    """What kind of predictor the versions of a model are for, told by their files: `onnx`, `tensorflow` or `python`.

    Raises BadInput where they are of several kinds.
    """
    tops = sorted({each.partition("/")[0] for each in files if is_version(each.partition("/")[0])})
    kinds = {_kind(_below(top, files)) for top in tops or [""]}
    if len(kinds) > 1:
        raise BadInput(f"model '{name}' has versions for {' and '.join(sorted(kinds))}: expected models of one kind")
    return kinds.pop()


def only_file(name: str, place: str, files: Mapping[str, Path]) -> Path:
    """The file that a model of a library is, where no program reads it. Raises BadInput for none or several."""
    inside = _below(place, files)
    if len(inside) != 1:
        said = ", ".join(f"'{each}'" for each in sorted(inside)[:3]) or "none"
        raise BadInput(
            f"model '{name}', '{PurePosixPath(place).name or '.'}' has {len(inside)} files ({said}): expected a .onnx "
            "file, a SavedModel or one saved model; what a program reads needs a cortex.yaml with its predictor"
        )
    return next(iter(inside.values()))


def _kind(inside: Mapping[str, Path]) -> str:
    if SAVED_MODEL in inside:
        return "tensorflow"
    return "onnx" if any(each.endswith(".onnx") for each in inside) else "python"


def files_in(folder: Path) -> dict[str, Path]:
    """The files below a folder by their path in it. Raises BadInput for a link or what is no plain file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_hidden(name) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file():
            raise BadInput(f"'{name}' in '{folder.name}' is a link or no plain file: copy the file into it")
        found[name] = path
    return found


def mark_of(folder: Path) -> str:
    """What changes when a file, or one below a folder, is added, removed, moved or written; nothing is read."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        name = path.relative_to(folder if folder.is_dir() else folder.parent).as_posix()
        if _is_hidden(name) or path.is_dir():
            continue
        stat = path.lstat()
        said = f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}\n"
        digest.update(said.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _below(folder: str, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files in a folder of a project, by their path in it."""
    start = f"{folder}/" if folder else ""
    found = {each[len(start) :]: path for each, path in files.items() if each.startswith(start)}
    return {each: path for each, path in found.items() if not _is_hidden(each)}


def _is_hidden(path: str) -> bool:
    """Whether it is what editors, systems and Python leave behind."""
    return any(part.startswith(".") or part in _LEFT for part in path.split("/"))


def _check_bare(name: str, folders: set[str], inside: Mapping[str, Path], kind: str) -> None:
    """That what has no version folders does not mean to have some: `v1/`, `latest/`."""
    wanted = {"onnx": ".onnx", "tensorflow": SAVED_MODEL}.get(kind)
    if wanted is None or any(each.endswith(wanted) and "/" not in each for each in inside):
        return
    holding = sorted(
        each for each in folders if any(at.startswith(f"{each}/") and at.endswith(wanted) for at in inside)
    )
    if holding:
        raise BadInput(
            f"model '{name}': the version folder '{holding[0]}' is no integer: expected a name such as 1 or 1623423423"
        )


def _check_model(name: str, place: str, files: Mapping[str, Path], kind: str) -> None:
    inside = _below(place, files)
    where = f"model '{name}', '{PurePosixPath(place).name or '.'}'"
    if kind == "onnx":
        found = sorted(each for each in inside if each.endswith(".onnx"))
        if len(found) != 1:
            said = ", ".join(f"'{each}'" for each in found[:3]) or "none"
            raise BadInput(f"{where} has {len(found)} .onnx files ({said}): expected exactly one")
    if kind == "tensorflow":
        if SAVED_MODEL not in inside:
            raise BadInput(f"{where} has no {SAVED_MODEL} at its top: expected a SavedModel")
        with inside[SAVED_MODEL].open("rb") as file:
            graph = file.read(_SEARCHED)
        if any(mark in graph for mark in _NEURON):
            raise BadInput(
                f"{where} is compiled for AWS Inferentia, which no edge device has: export the SavedModel from before "
                "its compiler"
            )
