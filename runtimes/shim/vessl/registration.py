"""What a program registers, written into a folder as a worker loads it.

runner.pkl          the runner, by value: its program is not run again
instance.pkl        the model, where the runner does not load one itself
volume/             the artifacts, at their paths in the model's volume
registration.json   the rest; it is written last
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

RECORD = "registration.json"
RUNNER, INSTANCE, VOLUME = "runner.pkl", "instance.pkl", "volume"


@dataclass
class Registration:
    """One model as it was registered. `save` keeps `model` by code of the user's own; `adds` are packages that it needs
    besides `requirements`, where these do not name them.
    """

    repository: Any
    number: Any
    runner: Any
    runner_name: str
    instance: Any = None
    save: Callable[[Any], Any] | None = None
    model: Any = None
    loads: bool = False
    requirements: Any = ()
    adds: Sequence[str] = ()
    artifacts: Any = field(default_factory=dict)


class _Place:
    """Where the running program registers, and where it lies: set by what runs it, None everywhere else."""

    folder: Path | None = None
    program: Path | None = None


def register_into(folder: Path, program: Path) -> None:
    """Take registrations of a program in the folder `program` from now on, into an empty folder."""
    _Place.folder, _Place.program = folder, program


def register(model: Registration) -> None:
    """Write a registration. Raises ValueError for one that does not fit, RuntimeError where none is taken."""
    folder = _Place.folder
    if folder is None:
        raise RuntimeError("nothing is registered here: package this file with edgepack")
    if (folder / RECORD).exists():
        raise ValueError("a second model is registered: expected one in a file")
    _check_names(model)
    props = _saved(model, folder / VOLUME)
    placed = _placed(model.artifacts, folder / VOLUME)
    _pickle(model.runner, folder / RUNNER)
    if model.instance is not None:
        _pickle(model.instance, folder / INSTANCE)
    record = {
        "repository": model.repository,
        "number": model.number,
        "runner": model.runner_name,
        "loads": model.loads,
        "props": props,
        "artifacts": placed,
        "requirements": list(model.requirements),
        "adds": list(model.adds),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def _check_names(model: Registration) -> None:
    if not (isinstance(model.repository, str) and model.repository.strip()):
        raise ValueError("repository_name is empty: name the model")
    is_number = isinstance(model.number, int) and not isinstance(model.number, bool) and model.number > 0
    if model.number is not None and not is_number:
        raise ValueError(f"model_number is {model.number!r}: expected 1 or more, or None for a new model")
    lines = model.requirements
    if isinstance(lines, str) or not isinstance(lines, Sequence) or not all(isinstance(each, str) for each in lines):
        raise ValueError("requirements are no list of strings")


def _saved(model: Registration, volume: Path) -> dict[str, str] | None:
    """What the user's `save_model` says that its `load_model` is to know. The files that it writes go to the volume,
    where that finds them by the same names.
    """
    if model.save is None:
        return None
    before = _files_here()
    props = model.save(model.model)
    for path in sorted(path for path, state in _files_here().items() if before.get(path) != state):
        target = volume / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if not isinstance(props, dict) or not all(isinstance(each, str) for pair in props.items() for each in pair):
        raise ValueError(f"save_model returned {type(props).__name__}: expected a dict of strings to strings")
    return props


def _files_here() -> dict[Path, tuple[int, int]]:
    """The files of the working folder, with time and size."""
    found = ((path, path.stat()) for path in Path().rglob("*") if path.is_file() and not path.is_symlink())
    return {path: (state.st_mtime_ns, state.st_size) for path, state in found}


def _placed(artifacts: Any, volume: Path) -> dict[str, str]:
    """Copy artifacts into the volume; returns each by its local name, with its path there."""
    volume.mkdir(parents=True, exist_ok=True)
    if not isinstance(artifacts, Mapping):
        raise ValueError(f"artifacts are {type(artifacts).__name__}: expected a dict of local paths to paths")
    placed = {}
    for local, remote in artifacts.items():
        _check_path(local, "artifact")
        _check_path(remote, "path in the volume")
        for source, goal in _copies(local, remote):
            target = volume / goal
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        placed[local] = _goal(local, remote)
    return placed


def _check_path(text: Any, what: str) -> None:
    path = PurePosixPath(text) if isinstance(text, str) and text else None
    if path is None or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{what} {text!r}: expected a relative path without '..'")
    if "*" in text.removesuffix("*") or any(mark in text for mark in "?["):
        raise ValueError(f"{what} {text!r}: only an asterisk at its end stands for several files")


def _goal(local: str, remote: str) -> str:
    """Where an artifact lies in the volume: a file into a folder that ends in a slash keeps its name."""
    if not local.endswith(("*", "/")) and not Path(local).is_dir() and remote.endswith("/"):
        return str(PurePosixPath(remote) / PurePosixPath(local).name)
    return str(PurePosixPath(remote.removesuffix("*") or "."))


def _copies(local: str, remote: str) -> Iterator[tuple[Path, str]]:
    """File and path in the volume of all that an artifact stands for. Raises ValueError where that is nothing."""
    goal = PurePosixPath(_goal(local, remote))
    if not local.endswith("*") and Path(local).is_file():
        yield Path(local), str(goal)
        return
    pattern = f"{local.removesuffix('/')}/*" if Path(local).is_dir() else local
    tops = sorted(Path().glob(pattern))
    found = [(each, top) for top in tops for each in (sorted(top.rglob("*")) if top.is_dir() else [top])]
    files = [(each, top) for each, top in found if each.is_file()]
    if not files:
        raise ValueError(f"artifact {local!r} is not there: expected a file, a folder, or a beginning with '*'")
    for each, top in files:
        yield each, str(goal / each.relative_to(top.parent))


def _pickle(value: Any, path: Path) -> None:
    """By value, the program's own modules too: they are not there where it is loaded."""
    import cloudpickle

    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and _Place.program and Path(file).is_relative_to(_Place.program):
            cloudpickle.register_pickle_by_value(module)
    with path.open("wb") as file:
        cloudpickle.dump(value, file)
