"""Filling an environment with uv: from a folder of wheels, from the index, or from both, always by hash.

The folder is tried first and by itself, so that it suffices without a network. Where it does not, what it lacks is
listed if there is no index either.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from buildx.resolve import uv_environment, uv_program, uv_reason, with_links
from edgepack.errors import BadInput, BuildFailed
from packager.environments.interpreters import KNOWN, Interpreter, find, own_minor
from packager.environments.recipe import Recipe, packages

_TIMEOUT_S = 1800
_TICK_S = 1.0
_RESOLVING = "1"  # raised when resolving is done in another way: what was resolved before is then not used any more


@dataclass(frozen=True)
class Order:
    """What an environment is made of and how: a recipe's lock for an interpreter, from the folder `wheels` first."""

    recipe: Recipe
    interpreter: Interpreter
    lock: str
    environ: Mapping[str, str]
    progress: Callable[[str], None]
    wheels: Path | None

    @property
    def packages(self) -> dict[str, str]:
        """Package → version of what will be installed."""
        return packages(self.lock, self.interpreter.minor)


def locked_recipe(
    recipe: Recipe, resolved: Path, environ: Mapping[str, str], wheels: Path | None, progress: Callable[[str], None]
) -> tuple[Interpreter, str]:
    """An interpreter of this machine and the lock file's text for it: shipped, resolved before, or resolved now.

    A folder of wheels may hold them for one Python only: the first for which it is whole comes before our own.
    Raises BadInput when no Python of this machine can have it.
    """
    refused = ""
    for interpreter, shipped in preferred(list(_candidates(recipe, environ)), wheels):
        if shipped is not None:
            return interpreter, shipped
        try:
            return interpreter, _resolved(recipe, interpreter, resolved, environ, wheels, progress)
        except BadInput as error:
            refused = refused or str(error)
    raise BadInput(
        f"no Python of this machine can have the environment '{recipe.title}'"
        + (f": {refused}" if refused else f": install one of Python {', '.join(KNOWN)}")
    )


def install(stage: Path, order: Order) -> None:
    """Make an environment in a folder that is not there yet. Raises BadInput when the order's folder of wheels lacks
    something and the index does not have it, BuildFailed when it does not end well for another reason.
    """
    recipe, interpreter, lock, environ, wheels = (
        order.recipe,
        order.interpreter,
        order.lock,
        order.environ,
        order.wheels,
    )
    why = f"the environment '{recipe.title}' could not be made"
    tell = _clock(order.progress, f"installing {len(order.packages)} packages for '{recipe.title}'")
    _uv(["venv", "-q", "--python", str(interpreter.path), "--relocatable", str(stage)], environ, why, tell)
    (stage / "lock.txt").write_text(lock)
    command = ["pip", "install", "-q", "--python", str(stage / "bin" / "python"), "--require-hashes"]
    # a sandboxed child cannot write byte code: without it each start would compile the libraries anew
    command += ["--compile-bytecode", "--only-binary", ":all:", "-r", str(stage / "lock.txt")]
    if wheels is None:
        _uv(command, environ, why, tell)
        return
    missing = lacking(wheels, lock, interpreter.minor)
    command += ["--find-links", str(wheels)]
    if not missing:
        with contextlib.suppress(BuildFailed):  # a wheel of that name with other bytes: the index may have the right
            _uv([*command, "--no-index"], environ, why, tell)
            return
    try:
        _uv(command, environ, why, tell)
    except BuildFailed as error:
        if not missing:
            raise
        raise BadInput(
            f"{why} from '{wheels}' alone: for Python {interpreter.minor} on {platform.machine()} it lacks "
            f"{', '.join(missing)}; the index: {str(error).removeprefix(f'{why}: ')}"
        ) from error


def lacking(wheels: Path, lock: str, minor: str) -> list[str]:
    """What a folder of wheels lacks of a lock for a Python (`3.11`) of this machine: `numpy 2.4.6`, sorted."""
    tags = _tags(minor)
    held: set[tuple[str, Version]] = set()
    for path in wheels.glob("*.whl"):
        with contextlib.suppress(InvalidWheelFilename):
            name, version, _, its = parse_wheel_filename(path.name)
            if not tags.isdisjoint(its):
                held.add((name, version))
    wanted = sorted(packages(lock, minor).items())
    return [f"{name} {version}" for name, version in wanted if (canonicalize_name(name), Version(version)) not in held]


def _tags(minor: str) -> set[Tag]:
    """What wheels a Python of this machine takes."""
    major, _, rest = minor.partition(".")
    python = int(major), int(rest)
    return {*cpython_tags(python), *compatible_tags(python, f"cp{major}{rest}")}


def _candidates(recipe: Recipe, environ: Mapping[str, str]) -> Iterator[tuple[Interpreter, str | None]]:
    """The Pythons of this machine that could have a recipe, with the lock that was shipped for each."""
    for minor in dict.fromkeys((own_minor(), *KNOWN)):
        path = recipe.lock(minor)
        if path is None and not (recipe.pins or recipe.is_resolved_here):
            continue
        interpreter = find(minor, environ)
        if interpreter is not None:
            yield interpreter, path.read_text() if path else None


def preferred(found: list[tuple[Interpreter, str | None]], wheels: Path | None) -> list[tuple[Interpreter, str | None]]:
    """Those first for which a folder of wheels is whole; else in the order given."""

    def lacks(each: tuple[Interpreter, str | None]) -> bool:
        interpreter, lock = each
        return wheels is None or lock is None or bool(lacking(wheels, lock, interpreter.minor))

    return sorted(found, key=lacks)


def _resolved(
    recipe: Recipe,
    interpreter: Interpreter,
    folder: Path,
    environ: Mapping[str, str],
    wheels: Path | None,
    progress: Callable[[str], None],
) -> str:
    """Resolve once; the answer is kept, so that the same artefact meets the same libraries tomorrow."""
    asked, minor = "\n".join(recipe.asked()), interpreter.minor
    local = "\n".join(sorted(path.name for path in wheels.glob("*.whl"))) if wheels else ""
    said = [_RESOLVING, minor, platform.machine(), asked, *([local] if local else [])]
    kept = folder / f"{hashlib.sha256(chr(0).join(said).encode()).hexdigest()[:32]}.txt"
    if kept.is_file():
        return kept.read_text()
    kept.parent.mkdir(parents=True, exist_ok=True)
    why = f"the environment '{recipe.title}' cannot be resolved for Python {minor}"
    tell = _clock(progress, f"resolving '{recipe.title}' for Python {minor}")
    with tempfile.TemporaryDirectory(dir=kept.parent) as work:
        part, source = Path(work) / "lock.txt", Path(work) / "asked.in"
        source.write_text(asked + "\n")
        command = ["pip", "compile", "-q", str(source), "-o", str(part), "--generate-hashes", "--no-annotate"]
        command += ["--no-header", "--only-binary", ":all:"]
        command += ["--python", str(interpreter.path), "--python-version", minor]
        try:
            _compile(command, environ, why, tell, wheels)
        except BuildFailed as error:
            raise BadInput(str(error)) from error
        part.replace(kept)
    return kept.read_text()


def _compile(
    command: list[str], environ: Mapping[str, str], why: str, tell: Callable[[], None], wheels: Path | None
) -> None:
    if wheels is not None:
        command = [*command, "--find-links", str(wheels)]
        with contextlib.suppress(BuildFailed):  # the folder does not hold everything: the rest comes from the index
            _uv([*command, "--no-index"], environ, why, tell)
            return
    _uv(command, environ, why, tell)


def _clock(progress: Callable[[str], None], what: str) -> Callable[[], None]:
    """Say what is being done, and for how long."""
    start = time.monotonic()
    return lambda: progress(f"{what}, {time.monotonic() - start:.0f} s")


def _uv(arguments: list[str], environ: Mapping[str, str], why: str, tell: Callable[[], None]) -> None:
    """Run uv to its end. Raises BuildFailed with its reason; interrupted, it is ended first."""
    end = time.monotonic() + _TIMEOUT_S
    environment = uv_environment(environ)
    with subprocess.Popen(
        [uv_program(), *with_links(arguments, environment)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
    ) as child:
        try:
            said = _waited(child, end, tell)
        except BaseException as error:
            child.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise BuildFailed(f"{why} within {_TIMEOUT_S} s: is the index reachable?") from error
    if child.returncode:
        raise BuildFailed(f"{why}: {uv_reason(said)}")


def _waited(child: subprocess.Popen[str], end: float, tell: Callable[[], None]) -> str:
    """What a child said on standard error until it ended; `tell` is called every second until then."""
    while True:
        tell()
        try:
            return child.communicate(timeout=_TICK_S)[1]
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                raise
