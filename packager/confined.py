"""Runs a program of ours on what a user made, as a child: in a pinned environment, confined, with a deadline.

What a child leaves in its folder is opened through `left` and `left_folder` alone. Code of the user's own may have run
there and put links and pipes in the places of files: to follow a link would show any file of this machine to somebody
who is confined, and a pipe that nobody writes to would be waited for without end.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import msgspec

from edgepack.errors import RuntimeFailed
from packager.convert.jobs import RESULT
from packager.environments import Environment
from runtimes.sandbox import SHIM, Sandbox, clean_environment

MEMORY_BYTES = 12 << 30
LARGEST_FILE = 4 << 30
LARGEST_RESULT = 64 << 20
_PACKAGER = Path(__file__).parent
_LAST_WORDS = 300
_TICK_S = 1.0
# sums that threads add up may differ from run to run, and on a busy machine threads wait for one another
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# a link is refused, and a pipe is opened at once
_AS_IT_LIES = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Said = TypeVar("Said")


def run_confined(
    module: str,
    job: Mapping[str, Any],
    artefact: Path,
    environment: Environment,
    folder: Path,
    timeout_s: float,
    doing: str,
    *,
    told: Callable[[str], None] | None = None,
) -> None:
    """Call `main(job)` of a module of this room, as JSON text, and wait for its end.

    It reads the artefact and its environment, writes into `folder` alone, has no network and starts no program.
    `doing` is what it is at, for messages; `told` hears about once a second what it printed last. Raises RuntimeFailed
    when it crashed, hung or ran out of memory.
    """
    sandbox = Sandbox(
        read=(artefact.resolve(), environment.folder),
        write=(folder.resolve(),),
        memory_bytes=MEMORY_BYTES,
        address_bytes=MEMORY_BYTES * 4,
        file_bytes=LARGEST_FILE,
        cpu_s=int(timeout_s * 8) + 8,
    )
    # the room comes last: some of its files have names of the standard library's
    path = [environment.site_packages, SHIM, _PACKAGER]
    command = sandbox.command(module, [msgspec.json.encode(job).decode()], path, str(environment.python))
    what = f"{doing} '{artefact.name}'"
    with (
        tempfile.TemporaryFile(dir=folder) as printed,  # it has no name there
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=clean_environment(folder.resolve(), _ONE_THREAD),
            cwd=folder,
        ) as child,
    ):
        try:
            _wait(child, timeout_s, lambda: told(_last_words(printed)) if told else None)
        except BaseException as error:
            child.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise RuntimeFailed(f"{what} took more than {timeout_s:g} s: stopped; is the model very large?") from error
        if child.returncode:
            words = _last_words(printed)
            ended = f"by signal {-child.returncode}" if child.returncode < 0 else f"with code {child.returncode}"
            raise RuntimeFailed(f"{what} ended {ended}{': …' + words if words else ''}")


def left(folder: Path, name: str, most: int) -> BinaryIO:
    """Open a file that a child left in its folder, for reading; the caller closes it.

    Raises FileNotFoundError where there is none, another OSError where it is no plain file or has more than `most`
    bytes.
    """
    handle = _opened(folder, name, _AS_IT_LIES)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"'{name}' is no plain file")
        if found.st_size > most:
            raise OSError(f"'{name}' has {found.st_size} bytes: expected at most {most}")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def left_folder(folder: Path, name: str) -> Path:
    """A folder that a child left in its own. Raises OSError where it is a link or a file; what lies in it is not looked
    at.
    """
    os.close(_opened(folder, name, _AS_IT_LIES | os.O_DIRECTORY))
    return folder / name


def _opened(folder: Path, name: str, flags: int) -> int:
    """A number for what lies there. Raises OSError that names it without its folder, which says nothing to a user."""
    try:
        return os.open(folder / name, flags)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def result_of(folder: Path, said: type[Said], doing: str) -> Said:
    """What a child says of its job, in `result.json`. Raises RuntimeFailed where that does not read."""
    try:
        with left(folder, RESULT, LARGEST_RESULT) as file:
            return msgspec.json.decode(file.read(), type=said)
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise RuntimeFailed(f"{doing} left no result that reads") from error


def _wait(child: subprocess.Popen[bytes], timeout_s: float, tick: Callable[[], None]) -> None:
    end = time.monotonic() + timeout_s
    while True:
        left_s = end - time.monotonic()
        try:
            child.wait(max(0.0, min(_TICK_S, left_s)))
            return
        except subprocess.TimeoutExpired:
            if left_s <= _TICK_S:
                raise
            tick()


def _last_words(printed: IO[bytes]) -> str:
    """The end of what a child printed, in one line; it may be printing still, from where this file is at."""
    most = 4 * _LAST_WORDS
    found = os.pread(printed.fileno(), most, max(0, os.fstat(printed.fileno()).st_size - most))
    return " ".join(found.decode(errors="replace").split())[-_LAST_WORDS:]
