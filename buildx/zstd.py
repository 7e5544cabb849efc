"""zstd: by Python 3.14's own library, or by the package `zstandard`. Neither is needed but for layers packed so."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from edgepack.errors import BadInput
from oci.zstd import find_zstd

LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MAGIC = b"\x28\xb5\x2f\xfd"  # of a frame (RFC 8878, 3.1.1)
_READ = 1 << 18  # bytes unpacked at a time


def zstd_library() -> Any:
    """The library that is there. Raises BadInput that says what to install."""
    library = find_zstd()
    if library is None:
        raise BadInput(
            "zstd needs Python 3.14 or the library 'zstandard': pip install zstandard, or use --compression splice"
        )
    return library


def open_zstd(packed: BinaryIO) -> BinaryIO:
    """A reader of what a file of any number of frames unpacks to, in bounded memory.

    Raises BadInput without a library; reading raises OSError for what is no such file, as gzip's reader does.
    """
    return cast(BinaryIO, io.BufferedReader(_Frames(packed), _READ))


class _Frames(io.RawIOBase):
    def __init__(self, packed: BinaryIO) -> None:
        library = zstd_library()
        self._errors = (library.ZstdError, EOFError)
        if hasattr(library, "ZstdFile"):
            self._unpacked: Any = library.ZstdFile(packed)
        else:
            self._unpacked = library.ZstdDecompressor().stream_reader(packed, read_across_frames=True, closefd=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._unpacked.read(len(buffer))
        except self._errors as error:
            raise OSError(f"is not a zstd stream: {error}") from error
        buffer[: len(data)] = data
        return len(data)
