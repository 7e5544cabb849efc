"""The folder of an artifact: files are written beside the place they are for, and put there once all are whole.

Only what an artifact is made of is ever replaced; a folder may hold other things, as a model that is put there by hand.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgepack.errors import BadInput

_PLAIN = re.compile(r"\w[\w .+-]*")


def check_name(name: str, own: tuple[str, ...]) -> None:
    """That the name of a model's file is plain, and none of `own`. Raises BadInput."""
    if not _PLAIN.fullmatch(name) or name in own:
        raise BadInput(
            f"model_file_name is '{name}': expected a plain name like 'model.joblib', of a file in the folder"
        )


@contextmanager
def staged(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder whose files go to `folder` at the end, unless an error ends it: then nothing is there.

    Raises BadInput where one of the files is there already, unless they may be overwritten; other files stay.
    """
    folder = folder.resolve()  # a link may lead to another file system
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"'{folder}' is no folder: choose another artifact_dir")
    is_new = not folder.exists()
    place = folder.parent if is_new else folder  # a rename stays within one file system
    place.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=place, prefix=f".{folder.name}-"))
    try:
        yield stage
        if is_new:
            stage.chmod(0o755)
            stage.rename(folder)
        else:
            _put(stage, folder, overwrite)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put(stage: Path, folder: Path, overwrite: bool) -> None:
    names = sorted(each.name for each in stage.iterdir())
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise BadInput(f"'{folder}' has a {there[0]} already: choose a new folder, or give force_overwrite=True")
    odd = [name for name in there if not (folder / name).is_file()]
    if odd:
        raise BadInput(f"'{odd[0]}' in '{folder}' is no file: move it away")
    for name in names:
        (stage / name).replace(folder / name)
