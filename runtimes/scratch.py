"""A folder that user-made code writes into: how full it is, and getting rid of it. Nothing in it is trusted."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_COUNTED = 100_000  # entries that are looked at: more is too many anyway


def usage(folder: Path) -> tuple[int, int]:
    """The bytes and entries below a folder. Links are not followed; what vanishes meanwhile is not there."""
    size = count = 0
    folders = [os.fspath(folder)]
    while folders and count < _COUNTED:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                count += 1
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_size
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return size, count


def delete(path: Path) -> None:
    """Delete a file or a folder with all in it. A tree nested too deep for that stays, less what could be deleted."""
    if path.is_dir() and not path.is_symlink():
        with suppress(RecursionError):
            shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
