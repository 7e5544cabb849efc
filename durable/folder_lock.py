"""`FolderLock`: one process owns a folder; a second one is told who does.

The lock is the kernel's (flock), so it is gone the moment its owner is, however it died. The file `lock` only carries
the owner's name for the message and is never removed: removing it would let two processes lock two different files.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from types import TracebackType

from edgepack.errors import BadInput

LOCK = "lock"  # the file in the folder that is locked


class FolderLock:
    """A context manager that holds a folder, made if it is missing, until the end of the block.

    Raises BadInput when somebody else holds it, or when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise BadInput that names the owner."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BadInput(
                f"data folder '{self._folder}' cannot be written: {error.strerror}; "
                "give another folder, or run as its owner"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            raise BadInput(
                f"data folder '{self._folder}' is in use by {owner}: stop it, or give another folder"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} ({_program()})\n".encode(), 0)
        self._handle = handle

    def release(self) -> None:
        """Give the folder back; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _program() -> str:
    name = " ".join([Path(sys.argv[0]).name or "python", *sys.argv[1:2]])
    return "".join(sign if sign.isprintable() else "?" for sign in name)[:100]
