"""One pass over a blob: its size, its digest and, for a layer, the digest of the tar inside it (the config's
diff_id).

gzip is read with the standard library. zstd needs Python 3.14 or the library `zstandard`, looked for when a layer asks
for it; without either such a layer is hashed and not unpacked.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from oci.blob import Blob
from oci.zstd import find_zstd

# bytes fed and unpacked at a time: bounds memory, and the copies that a layer of many gzip members costs
_PIECE = 1 << 18
_FEED = 1 << 16
_ZSTD_FEED = 1 << 10  # a block of 128 KiB may be 4 bytes long, and a frame's output cannot be had in parts


@dataclass(frozen=True)
class BlobFacts:
    """What was found.

    `diff_id` is None for what is no layer; `broken` says why a layer could not be unpacked.
    """

    size: int
    digest: str
    diff_id: str | None
    broken: str


def read_facts(blob: Blob, media_type: str, limit: int) -> BlobFacts:
    """Read a blob to its end, or to one byte more than `limit`: what is longer is wrong anyway."""
    unpack = _unpacker(media_type)
    diff_id, broken = None, ""
    with blob.open() as file:
        counted = _Counted(file, limit + 1)
        if unpack is not None:
            try:
                diff_id = unpack(counted)
            except _BrokenError as error:
                broken = str(error)
        while counted.read(_FEED):
            pass
    return BlobFacts(counted.size, counted.digest, diff_id, broken)


def compression_of(media_type: str) -> str:
    """What stands behind `tar` in a layer's media type: nothing, `gzip`, `zstd`."""
    return media_type.rpartition("tar")[2].lstrip(".+")


def can_unpack(compression: str) -> bool:
    """Whether layers of this compression can be read here."""
    return compression in ("", "gzip") or (compression == "zstd" and find_zstd() is not None)


class _BrokenError(Exception):
    """A layer that does not unpack, and why."""


class _Counted:
    """A blob as it is read, by whoever unpacks it: hashed and counted on the way, to a limit."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit, self._hasher, self.size = file, limit, hashlib.sha256(), 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"

    def read(self, size: int = -1) -> bytes:
        """As a file's; never all that is left at once."""
        data = self._file.read(min(_FEED if size < 0 else size, self._limit - self.size))
        self.size += len(data)
        self._hasher.update(data)
        return data


def _unpacker(media_type: str) -> Callable[[_Counted], str] | None:
    if "layer" not in media_type and "rootfs" not in media_type:
        return None
    compression = compression_of(media_type)
    if not can_unpack(compression):
        return None
    return {"": _plain, "gzip": _gzip, "zstd": _zstd}[compression]


def _plain(counted: _Counted) -> str:
    while counted.read(_FEED):
        pass
    return counted.digest


def _gzip(counted: _Counted) -> str:
    """Any number of gzip members, one after the other (RFC 1952, 2.2): a spliced layer has many."""
    hasher, member, begun = hashlib.sha256(), zlib.decompressobj(wbits=31), False
    while data := counted.read(_FEED):
        while data:
            if member.eof:
                if not begun and not (data := data.lstrip(b"\0")):
                    break  # zero padding behind the last member
                member = zlib.decompressobj(wbits=31)
            begun = True
            try:
                hasher.update(member.decompress(data, _PIECE))
            except zlib.error as error:
                raise _BrokenError(f"is not a gzip stream: {error}") from error
            data = member.unused_data or member.unconsumed_tail
            if member.eof:
                begun = False
    if not member.eof:
        raise _BrokenError("is cut short: its last gzip member has no end")
    return f"sha256:{hasher.hexdigest()}"


def _zstd(counted: _Counted) -> str:
    """Any number of frames, skippable ones among them (RFC 8878, 3.1)."""
    library, hasher = find_zstd(), hashlib.sha256()
    frame = _zstd_frame(library)
    while data := counted.read(_ZSTD_FEED):
        while data:
            if frame.eof:
                frame = _zstd_frame(library)
            try:
                hasher.update(frame.decompress(data))
            except library.ZstdError as error:
                raise _BrokenError(f"is not a zstd stream: {error}") from error
            data = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise _BrokenError("is cut short: its last zstd frame has no end")
    return f"sha256:{hasher.hexdigest()}"


def _zstd_frame(library: Any) -> Any:
    unpack = library.ZstdDecompressor()
    return unpack.decompressobj() if library.__name__ == "zstandard" else unpack
