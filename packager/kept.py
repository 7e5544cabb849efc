"""What was made of models, kept in the user's cache: `<cache>/conversions/<key>/`, whole or not there.

The key is made of everything that a conversion or a quantization depends on, so a second build of the same model makes
nothing. `outcome.json` says what was made; the time of that file is when it was last used.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from durable.files import publish
from edgepack.errors import BadInput

FOLDER = "conversions"
OUTCOME = "outcome.json"
_MAKING = ".making"


def kept(
    cache: Path, key: str, make: Callable[[Path], Path], what: str, lasts: Callable[[Path], bool] = lambda made: True
) -> Path:
    """The folder of an outcome: from an earlier run, or made now.

    `make` works in an empty folder of its own and returns a folder below it, which holds `outcome.json`. One that does
    not last is for this run alone: no other finds it, and it goes when unused ones are pruned. Raises BadInput where
    `what` is made and cannot be kept.
    """
    final = cache / FOLDER / key
    if not (final / OUTCOME).is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{_MAKING}-", dir=final.parent) as work:
            stage = make(Path(work))
            if not lasts(stage):
                final = final.with_name(f"{key}{Path(work).name.removeprefix(_MAKING)}")
            with suppress(OSError):  # another build was first: its outcome is the same
                publish(stage, final)
        if not (final / OUTCOME).is_file():
            raise BadInput(f"{what} cannot be kept in '{final.parent}': is it writable?")
    with suppress(OSError):  # a cache that cannot be written is read all the same
        os.utime(final / OUTCOME)
    return final


def list_conversions(cache: Path) -> tuple[int, int]:
    """How many files of conversions are kept, and their bytes."""
    sizes = [path.stat().st_size for path in (cache / FOLDER).rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def prune_conversions(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove conversions that no build used for so long, and what cut-off ones left; returns the bytes freed."""
    before = list_conversions(cache)[1]
    for folder in (cache / FOLDER).glob("*"):
        outcome = folder / OUTCOME
        if now_s - (outcome if outcome.is_file() else folder).stat().st_mtime >= unused_s:
            shutil.rmtree(folder, ignore_errors=True)
    return before - list_conversions(cache)[1]
