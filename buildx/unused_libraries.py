"""Libraries of a wheel of which no symbol is used by what an image keeps: each becomes an empty one of its name.

All of pyarrow's modules are linked against all of its libraries, so the loader wants every one to be there; but the
modules that an image keeps use nothing of some of them. That is not taken from a list but read out of the symbol
tables of the very wheel: a library that anything else in it needs a symbol of stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from buildx.elf import Symbols, empty_library, symbols
from buildx.entries import BytesSource, Entry

# package → libraries that may turn out to be unused
CANDIDATES = {"pyarrow": re.compile(r"(.*/)?pyarrow/lib(parquet|arrow_(dataset|acero|substrait))\.so\.\d+$")}
_LIBRARY = re.compile(r".*\.so(\.\d+)*$")


def without_unused(package: str, entries: Sequence[Entry]) -> list[Entry]:
    """The entries of a wheel, those of unused libraries with nothing in them."""
    pattern = CANDIDATES.get(package)
    if pattern is None or not any(pattern.match(entry.path) for entry in entries):
        return list(entries)
    found = {entry.path: _symbols(entry) for entry in entries if _LIBRARY.match(entry.path)}
    unused = _unused({path: each for path, each in found.items() if each}, pattern)
    return [_emptied(entry) if entry.path in unused else entry for entry in entries]


def _unused(libraries: Mapping[str, Symbols], pattern: re.Pattern[str]) -> set[str]:
    """The candidates that no kept library wants anything of; one that is kept is asked for its own wants."""
    unused = {path for path in libraries if pattern.match(path)}
    while True:
        kept = [each for path, each in libraries.items() if path not in unused]
        wanted = _union(each.wanted for each in kept) - _union(each.given for each in kept)
        needed = {path for path in unused if libraries[path].given & wanted}
        if not needed:
            return unused
        unused -= needed


def _union(names: Iterable[frozenset[bytes]]) -> set[bytes]:
    return set().union(*names)


def _symbols(entry: Entry) -> Symbols | None:
    return symbols(_content(entry))


def _emptied(entry: Entry) -> Entry:
    made = empty_library(_content(entry), PurePosixPath(entry.path).name)
    return Entry(entry.path, "file", BytesSource(made), entry.mode)


def _content(entry: Entry) -> bytearray:
    """A file's bytes, held once: Arrow's own library has 50 MB."""
    content, end = bytearray(entry.size), 0
    for chunk in entry.source.chunks() if entry.source else ():
        content[end : end + len(chunk)] = chunk
        end += len(chunk)
    return content
