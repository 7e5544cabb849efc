"""Writing a layer: entries become a compressed tar, and its two digests are known when it is written.

The splice. A gzip file may consist of several members (RFC 1952, 2.2), and a wheel already holds each file as a
deflate stream. So a large file of a wheel becomes a member of its own, whose body is copied out of the wheel; tar
headers and paddings between them are members of stored blocks. Nothing of that depends on any compressor. All smaller
files follow in one last run, which the layer's `Encoder` compresses. The order is fixed: the copied files below their
folders, then the rest, each sorted by path.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from buildx.entries import CHUNK, Entry, WheelMember, complete
from oci.digest import Digest
from oci.image import LAYER_GZIP

SPLICE_FROM = (
    32 << 10
)  # bytes in the wheel: below this, one compressed run of many files is smaller than members with headers
_BLOCK = 512
_STORED = 65535  # bytes: the most one stored block holds (RFC 1951, 3.2.4)
_MEMBER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, no operating system


class Encoder(Protocol):
    """Compresses one run of a tar; `name` is part of every cache key, because it decides the bytes."""

    @property
    def name(self) -> str:
        """What decides the bytes: kind, version and level of the compressor."""

    @property
    def media_type(self) -> str:
        """Of the layers it makes."""

    @property
    def splices(self) -> bool:
        """Whether large members of wheels are copied as they are, which only gzip allows."""

    def encode(self, raw: BinaryIO, out: BinaryIO) -> None:
        """Compress all of `raw` to the end of `out`."""


class Stored:
    """Compresses nothing: stored blocks, the same bytes everywhere. For weights, and where no pinned encoder is at
    hand.
    """

    name = "stored"
    media_type = LAYER_GZIP
    splices = True

    def encode(self, raw: BinaryIO, out: BinaryIO) -> None:
        """Wrap a run in gzip members of stored blocks."""
        while data := raw.read(CHUNK):
            out.write(stored_member(data))


@dataclass(frozen=True)
class LayerFile:
    """A written layer: the digest of the file, and that of the tar inside it (image-spec, "DiffID")."""

    path: Path
    digest: str
    size: int
    diff_id: str
    media_type: str


def write_layer(entries: Iterable[Entry], path: Path, encoder: Encoder) -> LayerFile:
    """Write entries as one layer to `path`, in bounded memory. Parents are added; a path given twice is a
    BuildFailed.
    """
    ordered = complete(entries)
    copied = [entry for entry in ordered if encoder.splices and _is_copied(entry)]
    above = _folders_above(copied)
    first = [entry for entry in ordered if entry.path in above]
    chosen = above | {entry.path for entry in copied}
    tar = hashlib.sha256()
    with path.open("wb") as out:
        _copy(first, copied, tar, out)
        with tempfile.TemporaryFile(dir=path.parent) as run:
            for chunk in _tar(entry for entry in ordered if entry.path not in chosen):
                tar.update(chunk)
                run.write(chunk)
            run.seek(0)
            encoder.encode(run, out)
    with path.open("rb") as written:
        digest = Digest.of(iter(lambda: written.read(CHUNK), b""))
    return LayerFile(path, str(digest), path.stat().st_size, f"sha256:{tar.hexdigest()}", encoder.media_type)


def stored_member(data: bytes) -> bytes:
    """Make a gzip member of stored blocks: bytes that no version of a compressor has a say in."""
    blocks = []
    for start in range(0, len(data) or 1, _STORED):
        part = data[start : start + _STORED]
        last = start + _STORED >= len(data)
        blocks += [struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF), part]
    return b"".join([_MEMBER, *blocks, _ending(zlib.crc32(data), len(data))])


def _is_copied(entry: Entry) -> bool:
    source = entry.source
    return isinstance(source, WheelMember) and source.deflated and source.compressed_size >= SPLICE_FROM


def _folders_above(entries: Iterable[Entry]) -> set[str]:
    return {str(above) for entry in entries for above in PurePosixPath(entry.path).parents} - {"."}


def _copy(folders: Iterable[Entry], copied: Iterable[Entry], tar: hashlib._Hash, out: BinaryIO) -> None:
    """Write the copied files, the folders they lie in before them."""
    between = b"".join(entry.header() for entry in folders)
    tar.update(between)
    for entry in copied:
        between = _splice(entry, between, tar, out)
    if between:
        out.write(stored_member(between))


def _splice(entry: Entry, before: bytes, tar: hashlib._Hash, out: BinaryIO) -> bytes:
    """Copy one member, after the headers or padding that come before it; returns the padding that it needs itself."""
    source = entry.source
    assert isinstance(source, WheelMember)  # noqa: S101 - `_is_copied` chose it
    header = entry.header()
    out.write(stored_member(before + header))
    out.write(_MEMBER)
    for packed in source.packed():
        out.write(packed)
    out.write(_ending(source.crc32, source.size))
    tar.update(header)
    for data in source.chunks():  # checks size and CRC, so that what was copied is known to be whole
        tar.update(data)
    tar.update(_padding(source.size))
    return _padding(source.size)


def _tar(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The tar of some entries, and the two blocks that end an archive."""
    for entry in entries:
        yield entry.header()
        if entry.source:
            yield from entry.source.chunks()
            yield _padding(entry.size)
    yield bytes(2 * _BLOCK)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _ending(crc32: int, size: int) -> bytes:
    return struct.pack("<II", crc32, size & 0xFFFFFFFF)
