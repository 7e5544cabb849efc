"""Environments on disk: `<cache>/environments/<key>/`, whole or not there; two programs may ask for one at once.

The key is that of the lock file's content, the interpreter and this module's way of making them. A folder is made
under a name of its own beside the final one, under a lock, and renamed when it is whole; `environment.json` in it says
what it is, and the time of that file when it was last used. While a program holds an `Environment`, nobody prunes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgepack.errors import BadInput
from packager.cache import writing
from packager.environments.install import Order, install, locked_recipe
from packager.environments.recipe import Recipe

FOLDER = "environments"
_MAKING = "1"  # raised when environments are made in another way: the old ones are then not used any more
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
    progress: Callable[[str], None] = lambda _: None,
    wheels: Path | None = None,
) -> Environment:
    """Return the environment of a recipe, making it when it is not there.

    What will be made is said to `notice`, how far it is to `progress`, about once a second. `wheels` is a folder of
    wheels that wins over the index and suffices without one. Raises BadInput when no Python of this machine can have
    it, `wheels` lacks something and no index is there, or the cache cannot be written; BuildFailed when an
    installation does not end well.
    """
    if wheels is not None and not wheels.is_dir():
        raise BadInput(f"--wheels '{wheels}' is not a folder: expected one that holds .whl files")
    with writing(cache):
        place = cache / FOLDER
        interpreter, lock = locked_recipe(recipe, place / "resolved", environ, wheels, progress)
        said = [_MAKING, interpreter.version, platform.machine(), lock]
        folder = place / hashlib.sha256("\0".join(said).encode()).hexdigest()[:32]
        with contextlib.ExitStack() as stack:
            _use(folder, stack)  # before it is looked for: nobody prunes it from here on
            found = _kept(folder)
            if found is None:
                with _alone(folder, lambda: progress(f"waiting for another build that makes '{recipe.title}'")):
                    found = _kept(folder)
                    if found is None:
                        order = Order(recipe, interpreter, lock, environ, progress, wheels)
                        _announce(order, place, notice)
                        found = _make(folder, order)
            with contextlib.suppress(OSError):
                os.utime(folder / _NOTE)
            environment = Environment(folder, found)
            weakref.finalize(environment, stack.pop_all().close)
            return environment


def list_environments(cache: Path) -> list[Kept]:
    """What is there, by title."""
    found = [_kept(path) for path in sorted((cache / FOLDER).glob("[0-9a-f]*")) if path.is_dir()]
    return sorted((each for each in found if each is not None), key=lambda each: (each.title, each.key))


def prune_environments(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove environments that nothing used for so long, and what cut-off makings left; returns the bytes freed.

    What a program is using or making now stays.
    """
    freed = 0
    for folder in sorted((cache / FOLDER).glob("[0-9a-f]*")):
        kept = _kept(folder)
        if kept is None or now_s - (folder / _NOTE).stat().st_mtime >= unused_s:
            freed += _removed(folder, kept)
    for path in (cache / FOLDER).glob(".*.part"):
        with _try_lock(path.with_suffix(".lock")) as is_free:
            if is_free:
                shutil.rmtree(path, ignore_errors=True)
    if not unused_s:
        shutil.rmtree(cache / FOLDER / "resolved", ignore_errors=True)
    return freed


def _removed(folder: Path, kept: Kept | None) -> int:
    """Remove an environment that nobody uses; its bytes."""
    with _try_lock(_beside(folder, "used")) as is_free:
        if not is_free:
            return 0
        shutil.rmtree(folder, ignore_errors=True)
        return kept.size_bytes if kept else 0


def _announce(order: Order, place: Path, notice: Callable[[str], None]) -> None:
    notice(
        f"making the environment '{order.recipe.title}' once: {len(order.packages)} packages for Python "
        f"{order.interpreter.minor}, about {order.recipe.about_mb} MB in '{place}'"
    )


def _make(folder: Path, order: Order) -> Kept:
    start = time.monotonic()
    stage = _beside(folder, "part")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        install(stage, order)
        seconds = round(time.monotonic() - start, 1)
        version, found = order.interpreter.version, order.packages
        kept = Kept(order.recipe.title, version, found, _size(stage), seconds, folder.name)
        (stage / _NOTE).write_bytes(msgspec.json.encode(kept))
        shutil.rmtree(folder, ignore_errors=True)
        stage.rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return kept


def _kept(folder: Path) -> Kept | None:
    try:
        found = msgspec.json.decode((folder / _NOTE).read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if (folder / "bin" / "python").exists() else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _beside(folder: Path, suffix: str) -> Path:
    """What lies beside an environment while it is made or used: `.<key>.part`, `.lock`, `.used`."""
    return folder.with_name(f".{folder.name}.{suffix}")


def _use(folder: Path, stack: contextlib.ExitStack) -> None:
    """Hold a shared lock on an environment until the stack is closed; none where a cache that has it is read-only."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(_beside(folder, "used").open("a"))
    except OSError:
        if _kept(folder) is None:
            raise
        return
    fcntl.flock(file, fcntl.LOCK_SH)


@contextlib.contextmanager
def _alone(folder: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Be the one who makes an environment; `waits` is called when another is at it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _beside(folder, "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Say whether nobody is making or using what a lock stands for."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
