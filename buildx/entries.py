"""`Entry`: one file, folder or link of a layer, and where its bytes come from.

Names, modes, owners and times are decided here and nowhere else, so that the same content always makes the same tar.
A wheel's member keeps its deflate stream reachable: the splice copies that stream instead of compressing again.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from edgepack.errors import BuildFailed

CHUNK = 1 << 20
MTIME = 1  # seconds after the epoch: some tools take 0 for "not set"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # APPNOTE.TXT 4.3.7


class Source(Protocol):
    """Bytes of known size that can be read any number of times, in pieces."""

    @property
    def size(self) -> int:
        """In bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Read from the beginning."""


@dataclass(frozen=True)
class BytesSource:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        """Give them in one piece."""
        yield self.data


@dataclass(frozen=True)
class PathSource:
    """Bytes of a file that does not change while the layer is written."""

    path: Path
    size: int

    @classmethod
    def of(cls, path: Path) -> PathSource:
        """Take a file as large as it is now."""
        return cls(path, path.stat().st_size)

    def chunks(self) -> Iterator[bytes]:
        """Read the file. Raises BuildFailed when its size changed: the tar header is already written."""
        seen = 0
        with self.path.open("rb") as file:
            while data := file.read(CHUNK):
                seen += len(data)
                yield data
        if seen != self.size:
            raise BuildFailed(
                f"file '{self.path.name}' changed while it was read: expected {self.size} bytes, got {seen}"
            )


@dataclass(frozen=True)
class WheelMember:
    """One member of a zip file. `deflated` is false for a member stored as it is."""

    wheel: Path
    name: str
    offset: int
    compressed_size: int
    size: int
    crc32: int
    deflated: bool

    @classmethod
    def of(cls, wheel: Path, info: zipfile.ZipInfo) -> WheelMember:
        """Take a member by its directory entry. Raises BuildFailed for one that wheels cannot have."""
        if info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED) or info.flag_bits & 1:
            raise BuildFailed(
                f"wheel '{wheel.name}' packs '{info.filename}' in a way wheels do not: expected deflate or nothing"
            )
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        return cls(wheel, info.filename, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)

    def packed(self) -> Iterator[bytes]:
        """Read the member as it lies in the zip file: for a deflated one, the raw deflate stream."""
        with self.wheel.open("rb") as file:
            left = self._seek(file)
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise self._damaged()
                left -= len(data)
                yield data

    def chunks(self) -> Iterator[bytes]:
        """Read the member's content, checked against size and CRC-32 of the directory."""
        seen, crc = 0, 0
        for data in _inflated(self.packed()) if self.deflated else self.packed():
            seen += len(data)
            crc = zlib.crc32(data, crc)
            if seen > self.size:
                raise self._damaged()
            yield data
        if seen != self.size or crc != self.crc32:
            raise self._damaged()

    def _seek(self, file: BinaryIO) -> int:
        """Go to the first byte after the local header, whose name and extra field have lengths of their own."""
        file.seek(self.offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise self._damaged()
        *_, name, extra = _LOCAL_HEADER.unpack(header)
        file.seek(name + extra, io.SEEK_CUR)
        return self.compressed_size

    def _damaged(self) -> BuildFailed:
        return BuildFailed(
            f"wheel '{self.wheel.name}' is damaged at '{self.name}': its bytes are not what its directory says"
        )


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Inflate a raw deflate stream with bounded memory, however well it is packed."""
    inflate = zlib.decompressobj(-15)
    try:
        for chunk in chunks:
            yield inflate.decompress(chunk, CHUNK)
            while inflate.unconsumed_tail:
                yield inflate.decompress(inflate.unconsumed_tail, CHUNK)
        while data := inflate.decompress(b"", CHUNK):
            yield data
    except zlib.error as error:
        raise BuildFailed(f"a deflate stream in a wheel does not read: {error}") from error


@dataclass(frozen=True)
class Entry:
    """One name in a layer; `path` has no leading slash. Owner 0:0 unless `owner` says so."""

    path: str
    kind: Literal["file", "folder", "link"] = "file"
    source: Source | None = None
    mode: int = 0o644
    target: str = ""
    owner: int = 0

    @property
    def size(self) -> int:
        """Bytes of content; 0 for folders and links."""
        return self.source.size if self.source else 0

    def header(self) -> bytes:
        """The tar header, with a PAX record before it where name or size need one."""
        member = tarfile.TarInfo(self.path)
        member.size, member.mtime, member.mode = self.size, MTIME, self.mode
        member.uid = member.gid = self.owner
        member.linkname = self.target
        member.type = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}[self.kind]
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A file of bytes in memory."""
    return Entry(path, "file", BytesSource(data), mode)


def folder(path: str, mode: int = 0o755, owner: int = 0) -> Entry:
    """A folder."""
    return Entry(path, "folder", None, mode, owner=owner)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, "link", None, 0o777, target)


def complete(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries and add the folders above them that are not given. Raises BuildFailed when one path is there
    twice.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in found and not (entry == found[entry.path] and entry.kind == "folder"):
            raise BuildFailed(f"path '/{entry.path}' is in one layer twice: two packages bring the same file")
        found[entry.path] = entry
    for path in list(found):
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            found.setdefault("/".join(parts[:depth]), folder("/".join(parts[:depth])))
    return [found[path] for path in sorted(found)]
