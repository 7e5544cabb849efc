"""The members of a tar, found by walking its headers: no extraction, no compression, nothing that a hostile
tar could steer.

Refused: links, devices and sparse files, names that leave the folder, a name that is there twice, headers of
headers without end. `tarfile` reads all these; it also reads an extended header of any size into memory,
which is why it only decodes one 512-byte header at a time here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgepack.errors import BadInput, NotTrusted

BLOCK = 512
_MOST_MEMBERS = 100_000
_LARGEST_EXTENSION = 64 << 10  # bytes of a pax or long-name header
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX = (b"x", b"g")


@dataclass(frozen=True)
class Member:
    """A file in a tar: where its bytes begin and how many its header promises."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Span:
    """A header at `header` and what follows it: a file, or None for a folder or an extension of the next header.

    The content ends at `end`, the padding behind it at `next`.
    """

    header: int
    end: int
    next: int
    member: Member | None = None


def members(path: Path) -> dict[str, Member]:
    """All files of a tar by name, a leading `./` taken off.

    A file whose last member is cut short still gives that member: what is missing shows when it is read.
    Raises BadInput if this is not a plain tar or a hostile one.
    """
    found: dict[str, Member] = {}
    with path.open("rb") as file:
        for count, member in enumerate(span.member for span in spans(file, path) if span.member):
            if member.name in found or count >= _MOST_MEMBERS:
                raise BadInput(f"tar '{path}' has '{member.name[:100]}' twice or too many members: refused")
            found[member.name] = member
    return found


def spans(file: BinaryIO, path: Path) -> Iterator[Span]:
    """Walk all headers. Raises as `members` does."""
    offset = 0
    said: dict[str, str] = {}
    while header := _header(file, offset, path):
        size = int(said.get("size", header.size))
        if size < 0 or any(key.startswith("GNU.sparse") for key in said):
            raise BadInput(f"tar '{path}' has a sparse file or a wrong size: refused")
        at, start, offset = offset, offset + BLOCK, offset + BLOCK + -(-size // BLOCK) * BLOCK
        if header.type in _PAX or header.type == tarfile.GNUTYPE_LONGNAME:
            extension = _extension(file, header, size, path)
            said = said if header.type == b"g" else {**said, **extension}
            yield Span(at, start + size, offset)
            continue
        name = _clean(said.get("path", header.name), path)
        said = {}
        if header.type not in (*_FILES, tarfile.DIRTYPE):
            raise BadInput(f"tar '{path}' has '{name}', a link or a device: refused, expected files and folders")
        member = Member(name, start, size) if header.type in _FILES else None
        yield Span(at, start + size, offset, member)


def _header(file: BinaryIO, offset: int, path: Path) -> tarfile.TarInfo | None:
    """The header at an offset, or None at the end of the tar."""
    file.seek(offset)
    block = file.read(BLOCK)
    if offset and (len(block) < BLOCK or not block.strip(b"\0")):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        if offset:
            raise NotTrusted(f"tar '{path}' is damaged: no valid header at byte {offset}, copy it again") from error
        raise BadInput(f"'{path}' is not an uncompressed tar: it does not begin with a tar header") from error


def _extension(file: BinaryIO, header: tarfile.TarInfo, size: int, path: Path) -> dict[str, str]:
    if size > _LARGEST_EXTENSION:
        raise BadInput(f"tar '{path}' has an extended header of {size} bytes, at most {_LARGEST_EXTENSION} are read")
    data = file.read(size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "replace")}
    return _pax_records(data, path)


def _pax_records(data: bytes, path: Path) -> dict[str, str]:
    """Records of a pax header, each `length key=text newline`."""
    records: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, text = data[len(length) + 1 : size - 1].partition(b"=")
        if not equals or size > len(data):
            raise BadInput(f"tar '{path}' has a damaged extended header: refused")
        records[key.decode("utf-8", "replace")] = text.decode("utf-8", "replace")
        data = data[size:]
    if not records.get("size", "0").isdigit() or len(records.get("size", "")) > 18:
        raise BadInput(f"tar '{path}' has a damaged extended header: refused")
    return records


def _clean(name: str, path: Path) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise BadInput(f"tar '{path}' has a member '{name[:100]}' that leaves its folder: refused")
    return "/".join(parts)
