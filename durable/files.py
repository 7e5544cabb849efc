"""Durable before visible: under its final name a file or folder is whole, or it is not there.

Temporary name in the same folder, write, sync, rename, sync the folder. A cut in between leaves at most a file that
ends in `.tmp`, which `sweep` removes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from durable.disk import DISK, Disk, writing

_MANY = 500  # files in a tree: from here on one sync of the file system costs less than one of each


def write_atomically(path: Path, data: bytes | Iterable[bytes], mode: int = 0o644, *, disk: Disk = DISK) -> None:
    """Write a file so that a power cut at any moment leaves the old content or the new, whole.

    When it returns, the new content is durable. When it raises, `path` is as it was, unless the very last step,
    syncing the folder, was what failed: then the new content is visible and whole, and it is not known whether it is
    durable.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")
    try:
        with writing(disk, disk.create(temporary, mode)) as handle:
            offset = 0
            for piece in [data] if isinstance(data, bytes) else data:
                disk.write(handle, offset, piece)
                offset += len(piece)
            disk.sync(handle)
        disk.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    disk.sync_folder(path.parent)


def publish(temporary: Path, final: Path, *, disk: Disk = DISK) -> None:
    """Make a file or folder prepared under a temporary name durable, then visible under its final one.

    Both names lie in one file system. An existing file is replaced; an existing folder with content is not (OSError).
    """
    _sync_tree(temporary, disk)
    disk.rename(temporary, final)
    disk.sync_folder(final.parent)
    if temporary.parent != final.parent:
        disk.sync_folder(temporary.parent)


def _sync_tree(path: Path, disk: Disk) -> None:
    if disk.is_folder(path) and _count(path, disk) > _MANY:
        disk.sync_file_system(path)
    else:
        _sync_each(path, disk)


def _count(path: Path, disk: Disk) -> int:
    """How many files a folder holds; no more are counted than decide."""
    found = 0
    for name in disk.names(path):
        found += _count(path / name, disk) if disk.is_folder(path / name) else 1
        if found > _MANY:
            break
    return found


def _sync_each(path: Path, disk: Disk) -> None:
    if not disk.is_folder(path):
        with writing(disk, disk.open(path, writable=False)) as handle:
            disk.sync(handle)
        return
    for name in disk.names(path):
        _sync_each(path / name, disk)
    disk.sync_folder(path)


def sync_folder(folder: Path, *, disk: Disk = DISK) -> None:
    """Return once the names in a folder would survive a power cut."""
    disk.sync_folder(folder)


def make_folder(path: Path, *, disk: Disk = DISK) -> None:
    """Make a folder and the parents it lacks, durably; one that exists is fine."""
    if disk.is_folder(path):
        return
    make_folder(path.parent, disk=disk)
    with contextlib.suppress(FileExistsError):  # another thread was faster: its name still needs the sync below
        disk.make_folder(path)
    disk.sync_folder(path.parent)


def sweep(folder: Path, *, disk: Disk = DISK) -> None:
    """Remove what a cut in `write_atomically` left in a folder; called by its owner, with nobody writing."""
    for name in disk.names(folder):
        if name.startswith(".") and name.endswith(".tmp"):
            disk.unlink(folder / name)
