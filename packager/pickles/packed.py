"""Pickles that joblib compressed, read as they were before, and never without end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from edgepack.errors import BadInput

MOST_BYTES = 8 << 30  # of a compressed file, unpacked
_PIECE = 1 << 20
_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
    (b"\x5d\x00", lzma.LZMAFile),
)
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def is_packed(head: bytes) -> bool:
    """Whether a file begins like one that joblib compressed."""
    return head.startswith(_ZLIB) or any(head.startswith(magic) for magic, _ in _OPENERS)


class _Zlib(io.RawIOBase):
    """A zlib stream as a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._engine, self._rest = file, zlib.decompressobj(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._engine.eof:
            data = self._engine.unconsumed_tail or self._file.read(_PIECE)
            if not data:
                raise ValueError("its compressed bytes end early")
            self._rest = self._engine.decompress(data, _PIECE)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _Counted(io.RawIOBase):
    """A file that gives no more than so many bytes."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._left, self._name = file, MOST_BYTES, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise BadInput(f"'{self._name}' unpacks to more than {MOST_BYTES} bytes: save it without compression")
        buffer[: len(data)] = data
        return len(data)


class _Stream(io.BufferedReader):
    """Buffered; it tells no position, because what is unpacked has none that pickletools could use."""

    def tell(self) -> int:
        return 0


def unpacked(raw: IO[bytes]) -> IO[bytes]:
    """The stream of a pickle: the file itself where it is not compressed."""
    head = raw.read(8)
    raw.seek(0)
    if not is_packed(head):
        return raw
    opened: Any = _Zlib(raw) if head.startswith(_ZLIB) else None
    for magic, opener in _OPENERS:
        if head.startswith(magic):
            opened = opener(raw)
    return _Stream(_Counted(opened, Path(str(raw.name)).name), _PIECE)
