"""The user's cache folder: all that lies in it can be made or fetched again. A file system that refuses is one line."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgepack.errors import BadInput

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turn what a file system refuses below the cache, and a full disk, into BadInput that says how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise BadInput(
                f"{reason}: make room on the disk of the cache '{cache}' and of '{tempfile.gettempdir()}', or set "
                "EDGEPACK_CACHE and TMPDIR to other folders"
            ) from error
        if not isinstance(error.filename, str) or not Path(error.filename).is_relative_to(cache):
            raise
        raise BadInput(
            f"the cache '{cache}' cannot be written: {reason}; set EDGEPACK_CACHE to another folder"
        ) from error
