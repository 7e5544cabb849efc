"""Runs a program of ours on what a user made, as a child: in a pinned environment, confined, with a deadline."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgepack.errors import RuntimeFailed
from packager.environments import Environment
from runtimes.sandbox import SHIM, Sandbox, clean_environment

MEMORY_BYTES = 12 << 30
LARGEST_FILE = 4 << 30
_PACKAGER = Path(__file__).parent
PRINTED = "printed.txt"  # in the child's folder: what it said to its terminal
_LAST_WORDS = 300
_TICK_S = 1.0
# sums that threads add up may differ from run to run, and on a busy machine threads wait for one another
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


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
        (folder / PRINTED).open("wb") as printed,
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
            _wait(child, timeout_s, lambda: told(_last_words(folder)) if told else None)
        except BaseException as error:
            child.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise RuntimeFailed(f"{what} took more than {timeout_s:g} s: stopped; is the model very large?") from error
    if child.returncode:
        words = _last_words(folder)
        ended = f"by signal {-child.returncode}" if child.returncode < 0 else f"with code {child.returncode}"
        raise RuntimeFailed(f"{what} ended {ended}{': …' + words if words else ''}")


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


def _last_words(folder: Path) -> str:
    """The end of what a child printed, in one line."""
    with (folder / PRINTED).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4 * _LAST_WORDS))
        return " ".join(file.read().decode(errors="replace").split())[-_LAST_WORDS:]
