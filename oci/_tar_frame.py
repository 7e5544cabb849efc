"""What in a tar no blob's digest covers: headers, padding, the end, and the documents.

A header has a sum of its own; where it stands is held to the letter here, for readers do not mind a blank in place of
a zero. Padding and the end are zeros (POSIX.1-2024, pax, "ustar Interchange Format"). The documents (index.json,
docker's list, attestations as files) are listed with their digests in a file that `sha256sum --check` reads too; tars
of other tools have none, and their documents are not covered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from oci._tar_members import BLOCK, Member, spans
from oci.digest import Digest

SUMS = "documents.sha256"
_SUMS_LIMIT = 4 << 20  # bytes
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")
BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_SUM = slice(148, 156)  # of a header: the sum of its bytes, this field taken as blanks
_SUM_FORMS = (b"%06o\0 ", b"%06o \0", b"%07o\0")
_PIECE = 1 << 20


def sums(documents: Mapping[str, bytes]) -> bytes:
    """The list of documents and their digests."""
    lines = (f"{Digest.of(data).hex}  {name}\n" for name, data in sorted(documents.items()))
    return "".join(lines).encode()


def frame_faults(path: Path, members: Mapping[str, Member]) -> Iterator[tuple[str, str]]:
    """What is wrong around the blobs: the name of a document or of the place, and the fault."""
    with path.open("rb") as file:
        yield from _outside(file, path)
        if SUMS in members:
            documents = {name: member for name, member in members.items() if not BLOB.fullmatch(name)}
            yield from _documents(file, documents)


def _outside(file: BinaryIO, path: Path) -> Iterator[tuple[str, str]]:
    at = 0
    for span in spans(file, path):
        at = span.next
        name = span.member.name if span.member else f"byte {span.header}"
        if not _is_summed(_read(file, span.header, BLOCK)):
            yield name, "has a damaged header"
        if _read(file, span.end, span.next - span.end).strip(b"\0"):
            yield name, "has something behind its end that is no padding"
    yield from _end(file, at)


def _end(file: BinaryIO, at: int) -> Iterator[tuple[str, str]]:
    """Two blocks of zeros, and then nothing but zeros."""
    file.seek(at)
    length = 0
    while data := file.read(_PIECE):
        if data.strip(b"\0"):
            yield f"byte {at + length}", "is behind the end of the tar, and no padding"
            return
        length += len(data)
    if length < 2 * BLOCK:
        yield f"byte {at}", "is where the tar ends, without an end: it was cut short"


def _is_summed(header: bytes) -> bool:
    summed = sum(header) - sum(header[_SUM]) + len(header[_SUM]) * ord(" ")
    return header[_SUM] in [form % summed for form in _SUM_FORMS]


def _documents(file: BinaryIO, documents: dict[str, Member]) -> Iterator[tuple[str, str]]:
    listed = _listed(_read(file, documents[SUMS].offset, min(documents[SUMS].size, _SUMS_LIMIT)))
    if listed is None:
        yield SUMS, "is damaged"
        return
    for name in sorted({*listed, *documents} - {SUMS}):
        if name not in documents:
            yield name, f"is missing, '{SUMS}' lists it"
        elif name not in listed:
            yield name, f"is not listed in '{SUMS}'"
        elif (found := _digest(file, documents[name])) != (said := f"sha256:{listed[name]}"):
            yield name, f"is damaged: its bytes have the digest {found}, '{SUMS}' says {said}"


def _listed(data: bytes) -> dict[str, str] | None:
    """Name → digest; None unless it reads to the letter."""
    text = data.decode("utf-8", "replace")
    found = {name: digest for digest, name in _LINE.findall(text)}
    whole = "".join(f"{digest}  {name}\n" for name, digest in found.items())
    return found if whole == text else None


def _digest(file: BinaryIO, member: Member) -> str:
    starts = range(member.offset, member.offset + member.size, _PIECE)
    return Digest.of(_read(file, at, min(_PIECE, member.offset + member.size - at)) for at in starts)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
