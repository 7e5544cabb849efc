"""What was fetched from registries and lies in the cache: told from other paths, listed, pruned. Speaks to none."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

FOLDER = "registry"
_DOWNLOADING_S = 86_400.0  # what is younger may still be written


def is_download(path: Path, cache: Path) -> bool:
    """Whether a path is a model that was fetched."""
    return path.absolute().is_relative_to((cache / FOLDER).absolute())


def list_downloads(cache: Path) -> tuple[int, int]:
    """How many models are kept, and their bytes."""
    folders = [each for each in (cache / FOLDER).glob("[0-9a-f]*") if each.is_dir()]
    return len(folders), sum(map(_size, folders))


def prune_downloads(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove models that nobody asked for in so long, and what cut-off downloads left; returns the bytes freed."""
    before = list_downloads(cache)[1]
    for folder in (cache / FOLDER).glob("*"):
        least_s = max(unused_s, _DOWNLOADING_S) if folder.name.startswith(".") else unused_s
        with suppress(OSError):
            if now_s - folder.stat().st_mtime >= least_s:
                shutil.rmtree(folder, ignore_errors=True)
    return before - list_downloads(cache)[1]


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
