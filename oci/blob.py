"""Bytes with a descriptor, wherever they lie."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from edgepack.errors import NotTrusted
from oci.descriptor import Descriptor
from oci.digest import Digest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20


class Blob(Protocol):
    """One blob: what it is, and a way to read it any number of times."""

    @property
    def descriptor(self) -> Descriptor:
        """Media type, digest and size."""

    def open(self) -> BinaryIO:
        """Read from the beginning."""


@dataclass(frozen=True)
class BytesBlob:
    """A blob held in memory: manifests, configs, specs."""

    data: bytes
    descriptor: Descriptor

    @classmethod
    def of(cls, data: bytes, media_type: str, annotations: dict[str, str] | None = None) -> BytesBlob:
        """Make a blob of bytes; its digest is computed here."""
        return cls(data, Descriptor(media_type, Digest.of(data), len(data), annotations or {}))

    def open(self) -> BinaryIO:
        """Read from the beginning."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class FileBlob:
    """A blob in a file; the descriptor is what the file was known by when the blob was made."""

    path: Path
    descriptor: Descriptor

    @classmethod
    def of(cls, path: Path, media_type: str, annotations: dict[str, str] | None = None) -> FileBlob:
        """Make a blob of a file: reads it once for its digest and size."""
        with path.open("rb") as file:
            digest = Digest.of(chunks(file))
        return cls(path, Descriptor(media_type, digest, path.stat().st_size, annotations or {}))

    def open(self) -> BinaryIO:
        """Read from the beginning."""
        return self.path.open("rb")


@dataclass(frozen=True)
class SliceBlob:
    """A blob that lies inside a larger file: a member of a tar, read where it is."""

    path: Path
    offset: int
    length: int
    descriptor: Descriptor

    def open(self) -> BinaryIO:
        """Read from the beginning of the slice to its end, or to the file's where that comes first."""
        return io.BufferedReader(_Window(self.path, self.offset, self.length), buffer_size=CHUNK)


class _Window(io.RawIOBase):
    """The bytes of a file from `offset` on, `length` of them."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._offset, self._length, self._at = offset, length, 0
        self._file.seek(offset)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        count = self._file.readinto(view) or 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, start + offset)
        self._file.seek(self._offset + self._at)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Read a file to its end in pieces of 1 MiB."""
    while data := file.read(CHUNK):
        yield data


def verified(blob: Blob) -> Iterator[bytes]:
    """Read a blob in pieces and check it on the way: for every copy from one place to another.

    Raises NotTrusted after the last piece unless size and digest are those of the descriptor, so the taker
    must not publish what it took before the pieces have come to their end.
    """
    said = blob.descriptor
    hasher, size = hashlib.sha256(), 0
    with blob.open() as file:
        for chunk in chunks(file):
            size += len(chunk)
            if size > said.size:
                raise NotTrusted(f"blob {said.digest} is longer than the {said.size} bytes it should have: refused")
            hasher.update(chunk)
            yield chunk
    if size != said.size:
        raise NotTrusted(f"blob {said.digest} is {size} bytes, its descriptor says {said.size}: refused")
    if (found := f"sha256:{hasher.hexdigest()}") != said.digest:
        raise NotTrusted(f"blob {said.digest} has the digest {found}: refused, fetch or build it again")
