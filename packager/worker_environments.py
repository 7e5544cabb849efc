"""The environments of python steps that are unpacked on this machine to try bundles: `<cache>/workers/`.

As those of a device (`runtimes.environment`), they are made of the wheels of a bundle. The time of a folder is when it
was last used.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtimes.environment import SCRATCH, collect

FOLDER = "workers"
_LOCK = "lock"  # shared by all who use the folder


@contextmanager
def worker_environments(cache: Path) -> Iterator[Path]:
    """The folder to make them in; nothing in it is pruned while this is held."""
    folder = cache / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")
    except OSError:  # what cannot be written is not pruned either
        yield folder
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder


def list_worker_environments(cache: Path) -> tuple[int, int]:
    """How many there are, and the bytes on the disk: of files that several share, once."""
    sizes = {}
    for path in (cache / FOLDER).rglob("*"):
        with suppress(FileNotFoundError):  # it was a temporary one
            found = path.lstat()
            sizes[found.st_ino] = 0 if path.is_dir() else found.st_size
    return len(_environments(cache)), sum(sizes.values())


def prune_worker_environments(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove those that nothing used for so long, unless a program is using the folder now; returns the bytes freed."""
    before = list_worker_environments(cache)[1]
    with suppress(OSError), (cache / FOLDER / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kept = [path.name for path in _environments(cache) if now_s - path.stat().st_mtime < unused_s]
        collect(cache / FOLDER, [*kept, _LOCK])
    return before - list_worker_environments(cache)[1]


def _environments(cache: Path) -> list[Path]:
    return [path for path in (cache / FOLDER).glob("[0-9a-f]*") if path.is_dir() and path.name != SCRATCH]
