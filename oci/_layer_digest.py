"""One pass over a blob: its size, its digest and, for a layer, the digest of the tar inside it (the config's
diff_id).
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Protocol

from oci.blob import Blob

COMPRESSIONS = (
    "",
    "gzip",
)  # what stands behind `tar` in a media type and can be read with the standard library
_PIECE = (
    1 << 18
)  # bytes fed and unpacked at a time: bounds memory, and the copies that a layer of many gzip members costs
_FEED = 1 << 16


@dataclass(frozen=True)
class BlobFacts:
    """What was found.

    `diff_id` is None for what is no layer; `broken` says why a layer could not be unpacked.
    """

    size: int
    digest: str
    diff_id: str | None
    broken: str


class _Unpacked(Protocol):
    def feed(self, data: bytes) -> None: ...

    def end(self) -> str: ...


def read_facts(blob: Blob, media_type: str, limit: int) -> BlobFacts:
    """Read a blob to its end, or to one byte more than `limit`: what is longer is wrong anyway."""
    hasher, size, broken = hashlib.sha256(), 0, ""
    unpacked = _reader(media_type)
    with blob.open() as file:
        while size <= limit and (data := file.read(min(_FEED, limit + 1 - size))):
            size += len(data)
            hasher.update(data)
            if unpacked is not None and not broken:
                broken = _feed(unpacked, data)
    diff_id = unpacked.end() if unpacked is not None and not broken else None
    if diff_id == "":
        broken = "is cut short: its last gzip member has no end"
    return BlobFacts(size, f"sha256:{hasher.hexdigest()}", diff_id, broken)


def _reader(media_type: str) -> _Unpacked | None:
    if "layer" not in media_type and "rootfs" not in media_type:
        return None
    kind = media_type.rpartition("tar")[2].lstrip(".+")
    if kind not in COMPRESSIONS:
        return None
    return _Gzip() if kind == "gzip" else _Plain()


def _feed(unpacked: _Unpacked, data: bytes) -> str:
    try:
        unpacked.feed(data)
    except zlib.error as error:
        return f"is not a gzip stream: {error}"
    return ""


class _Plain:
    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        self._hasher.update(data)

    def end(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"


class _Gzip:
    """Any number of gzip members, one after the other (RFC 1952, 2.2): a spliced layer has many."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False

    def feed(self, data: bytes) -> None:
        while data:
            if self._member.eof:
                if not self._begun and not (data := data.lstrip(b"\0")):
                    return  # zero padding behind the last member
                self._member = zlib.decompressobj(wbits=31)
            self._begun = True
            self._hasher.update(self._member.decompress(data, _PIECE))
            data = self._member.unused_data or self._member.unconsumed_tail
            if self._member.eof:
                self._begun = False

    def end(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}" if self._member.eof else ""
