"""`Disk`: the one seam through which bytes become durable, so that tests can cut the power at any call.

What stands here is the real disk, one system call a method and nothing clever. `tests/fakes/disk.py` holds a disk in
memory that forgets what was not synced, and faults for every call; both pass the same suite.

The promises that code above may build on, and no others (POSIX, read strictly):

- what was written to a file survives a power cut once `sync` of that file returned; before that, any part of it may;
- a name (made, renamed, removed) survives once `sync_folder` of its folder returned; before that, any of them may;
- a rename is atomic: after a cut there is the old name or the new one;
- after a failed `sync` nothing is known about the unsynced bytes, and a second `sync` that succeeds proves nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from durable.folder_lock import FolderLock

_LIBC = ctypes.CDLL(None, use_errno=True)  # syncfs(2) has no name in `os`; Linux has it since 2.6.39


class Disk:
    """The real disk. Every method raises OSError as the system call does."""

    def make_folder(self, path: Path) -> None:
        """Make one folder; its parent exists."""
        path.mkdir()

    def is_folder(self, path: Path) -> bool:
        """Whether a folder of that name exists."""
        return path.is_dir()

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths

    def size(self, path: Path) -> int:
        """The size of a file in bytes."""
        return path.stat().st_size

    def read(self, path: Path, size: int | None = None) -> bytes:
        """The first `size` bytes of a file, or all; fewer where the file is shorter."""
        with path.open("rb", buffering=0) as file:
            return file.read(-1 if size is None else size) or b""

    def create(self, path: Path, mode: int = 0o644) -> int:
        """Make a new file for writing, with exactly this mode whatever the umask; returns a handle."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.fchmod(handle, mode)
        except OSError:
            os.close(handle)
            raise
        return handle

    def open(self, path: Path, *, writable: bool = True) -> int:
        """Open an existing file, for writing or only to be synced; returns a handle."""
        return os.open(path, (os.O_WRONLY if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def preallocate(self, handle: int, size: int) -> None:
        """Make a file `size` bytes long with its blocks set aside, so that later writes in it find room."""
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot: writes may find none
                raise

    def write(self, handle: int, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`."""
        written = os.pwrite(handle, data, offset)
        while written < len(data):
            written += os.pwrite(handle, memoryview(data)[written:], offset + written)

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        """Return once what was written to the file, and its length, would survive a power cut."""
        os.fdatasync(handle)

    def close(self, handle: int) -> None:
        """Give a handle back; proves nothing about what was written through it."""
        os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder a new name, atomically; a file that has the new name is replaced."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a file's name."""
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder would survive a power cut."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_file_system(self, folder: Path) -> None:
        """Return once everything that was written in the file system of a folder would survive a power cut.

        One call where a tree has thousands of files: each `sync` of its own would wait for the journal.
        """
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _LIBC.syncfs(handle):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(folder))
        finally:
            os.close(handle)

    def lock(self, folder: Path) -> contextlib.AbstractContextManager[object]:
        """A lock that keeps every other process, and every other opener in this one, out of a folder."""
        return FolderLock(folder)


DISK = Disk()  # what is used where no other is handed in


@contextlib.contextmanager
def writing(disk: Disk, handle: int) -> Iterator[int]:
    """Close a handle at the end of a `with` block, whatever happens in it."""
    try:
        yield handle
    finally:
        disk.close(handle)
