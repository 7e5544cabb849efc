"""Environments on disk: `<cache>/environments/<key>/`, whole or not there; two programs may ask for one at once.

The key is that of the lock file's content, the interpreter and this module's way of making them. A folder is made
under a name of its own beside the final one, under a lock, and renamed when it is whole; `environment.json` in it says
what it is, and the time of that file when it was last used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from buildx.resolve import uv_environment, uv_program, uv_reason
from edgepack.errors import BadInput, BuildFailed
from packager.environments.interpreters import KNOWN, Interpreter, find, own_minor
from packager.environments.recipe import Recipe, packages

FOLDER = "environments"
_MAKING = "1"  # raised when environments are made in another way: the old ones are then not used any more
_TIMEOUT_S = 1800
_NOTE = "environment.json"


class Kept(msgspec.Struct, frozen=True):
    """What lies in the cache: written into each environment when it is whole."""

    title: str
    python: str
    packages: dict[str, str]
    size_bytes: int
    seconds: float
    key: str = ""


@dataclass(frozen=True)
class Environment:
    """An environment that is whole: its interpreter and what is installed there."""

    folder: Path
    kept: Kept

    @property
    def python(self) -> Path:
        """The program to start children with."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its libraries lie."""
        minor = ".".join(self.kept.python.split(".")[:2])
        return self.folder / "lib" / f"python{minor}" / "site-packages"


def ready(
    recipe: Recipe,
    cache: Path,
    environ: Mapping[str, str],
    *,
    notice: Callable[[str], None] = lambda _: None,
    wheels: Path | None = None,
) -> Environment:
    """Return the environment of a recipe, making it when it is not there; what will be made is said to `notice`.

    `wheels` is a folder of wheels that wins over the index and suffices without one. Raises BadInput when no Python of
    this machine can have it, BuildFailed when an installation does not end well.
    """
    interpreter, lock = _locked_recipe(recipe, cache, environ, wheels)
    key = hashlib.sha256("\0".join([_MAKING, interpreter.version, platform.machine(), lock]).encode()).hexdigest()[:32]
    folder = cache / FOLDER / key
    found = _kept(folder)
    if found is None:
        with _lock(cache / FOLDER / f".{key}.lock"):
            found = _kept(folder) or _make(folder, recipe, interpreter, lock, environ, notice, wheels)
    with contextlib.suppress(OSError):
        os.utime(folder / _NOTE)
    return Environment(folder, found)


def list_environments(cache: Path) -> list[Kept]:
    """What is there, by title."""
    found = [_kept(path) for path in sorted((cache / FOLDER).glob("[0-9a-f]*")) if path.is_dir()]
    return sorted((each for each in found if each is not None), key=lambda each: (each.title, each.key))


def prune_environments(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove environments that nothing used for so long, and what cut-off makings left; returns the bytes freed."""
    freed = 0
    for folder in sorted((cache / FOLDER).glob("[0-9a-f]*")):
        kept = _kept(folder)
        if kept is None or now_s - (folder / _NOTE).stat().st_mtime >= unused_s:
            freed += kept.size_bytes if kept else 0
            shutil.rmtree(folder, ignore_errors=True)
    for path in (cache / FOLDER).glob(".*.part"):
        with _try_lock(path.with_suffix(".lock")) as is_free:
            if is_free:
                shutil.rmtree(path, ignore_errors=True)
    if not unused_s:
        shutil.rmtree(cache / FOLDER / "resolved", ignore_errors=True)
    return freed


def _locked_recipe(
    recipe: Recipe, cache: Path, environ: Mapping[str, str], wheels: Path | None
) -> tuple[Interpreter, str]:
    """An interpreter of this machine and the lock file's text for it: shipped, resolved before, or resolved now."""
    refused = ""
    for minor in dict.fromkeys((own_minor(), *KNOWN)):
        shipped = recipe.lock(minor)
        if shipped is None and not recipe.pins:
            continue
        interpreter = find(minor, environ)
        if interpreter is None:
            continue
        if shipped is not None:
            return interpreter, shipped.read_text()
        try:
            return interpreter, _resolved(recipe, minor, cache, environ, wheels)
        except BadInput as error:
            refused = refused or str(error)
    raise BadInput(
        f"no Python of this machine can have the environment '{recipe.title}'"
        + (f": {refused}" if refused else f": install one of Python {', '.join(KNOWN)}")
    )


def _resolved(recipe: Recipe, minor: str, cache: Path, environ: Mapping[str, str], wheels: Path | None) -> str:
    """Resolve once; the answer is kept, so that the same artefact meets the same libraries tomorrow."""
    asked = "\n".join(recipe.asked())
    named = hashlib.sha256(f"{_MAKING}\0{minor}\0{platform.machine()}\0{asked}".encode()).hexdigest()[:32]
    kept = cache / FOLDER / "resolved" / f"{named}.txt"
    if kept.is_file():
        return kept.read_text()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as work:
        part, source = Path(work) / "lock.txt", Path(work) / "asked.in"
        source.write_text(asked + "\n")
        command = ["pip", "compile", "-q", str(source), "-o", str(part), "--generate-hashes", "--no-annotate"]
        command += ["--no-header", "--python-version", minor, "--only-binary", ":all:", *_links(wheels)]
        _uv(command, environ, f"the environment '{recipe.title}' cannot be resolved for Python {minor}", BadInput)
        part.replace(kept)
    return kept.read_text()


def _make(
    folder: Path,
    recipe: Recipe,
    interpreter: Interpreter,
    lock: str,
    environ: Mapping[str, str],
    notice: Callable[[str], None],
    wheels: Path | None,
) -> Kept:
    found = packages(lock)
    notice(
        f"making the environment '{recipe.title}' once: {len(found)} packages for Python {interpreter.minor}, "
        f"about {recipe.about_mb} MB in '{folder.parent}'"
    )
    start = time.monotonic()
    stage = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _install(stage, interpreter, lock, environ, wheels, recipe.title)
        kept = Kept(
            recipe.title, interpreter.version, found, _size(stage), round(time.monotonic() - start, 1), folder.name
        )
        (stage / _NOTE).write_bytes(msgspec.json.encode(kept))
        shutil.rmtree(folder, ignore_errors=True)
        stage.rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return kept


def _install(
    stage: Path, interpreter: Interpreter, lock: str, environ: Mapping[str, str], wheels: Path | None, title: str
) -> None:
    why = f"the environment '{title}' could not be made"
    _uv(["venv", "-q", "--python", str(interpreter.path), "--relocatable", str(stage)], environ, why, BuildFailed)
    (stage / "lock.txt").write_text(lock)
    command = ["pip", "install", "-q", "--python", str(stage / "bin" / "python"), "--require-hashes"]
    # a sandboxed child cannot write byte code: without it each start would compile the libraries anew
    command += ["--compile-bytecode", "--only-binary", ":all:", *_links(wheels), "-r", str(stage / "lock.txt")]
    if wheels is not None:
        try:
            _uv([*command, "--no-index"], environ, why, BuildFailed)
            return
        except BuildFailed:
            pass  # the folder does not hold everything: the rest comes from the index
    _uv(command, environ, why, BuildFailed)


def _uv(arguments: list[str], environ: Mapping[str, str], why: str, family: type[BadInput] | type[BuildFailed]) -> None:
    try:
        done = subprocess.run(
            [uv_program(), *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=uv_environment(environ),
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{why} within {_TIMEOUT_S} s: is the index reachable?") from error
    if done.returncode:
        raise family(f"{why}: {uv_reason(done.stderr)}")


def _links(wheels: Path | None) -> list[str]:
    return [] if wheels is None else ["--find-links", str(wheels)]


def _kept(folder: Path) -> Kept | None:
    try:
        found = msgspec.json.decode((folder / _NOTE).read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if (folder / "bin" / "python").exists() else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Say whether nobody is making what a lock stands for."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
