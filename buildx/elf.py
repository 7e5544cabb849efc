"""Shared libraries, as far as leaving one empty asks for: which symbols each gives and wants, and one that has none.

64-bit, little-endian, as all targets are (System V ABI, "Object Files"; elf(5)). Also used in a generated Dockerfile's
stage, where only the standard library is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01"
_SHARED, _DYNSYM, _WEAK = 3, 11, 2
_LOAD, _DYNAMIC, _STACK, _READ_WRITE = 1, 2, 0x6474E551, 6
_HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 4, 5, 6, 10, 11, 14  # tags of the dynamic section
_PAGE = 0x10000  # the largest that ARM kernels use


@dataclass(frozen=True)
class Symbols:
    """Names that a library defines, and names that another one must define for it."""

    given: frozenset[bytes]
    wanted: frozenset[bytes]


def symbols(data: bytes | bytearray) -> Symbols | None:
    """Read the dynamic symbols of a file; None for what is no shared library of our kind."""
    if len(data) < _HEADER.size or data[: len(_IDENT)] != _IDENT:
        return None
    given, wanted = set(), set()
    for name, binding, section in _symbols(data):
        if section:
            given.add(name)
        elif binding != _WEAK:
            wanted.add(name)
    return Symbols(frozenset(given), frozenset(wanted))


def _symbols(data: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Name, binding and section (0: undefined) of each dynamic symbol."""
    head = _HEADER.unpack_from(data)
    offset, size, count = head[6], head[11], head[12]
    sections = [_SECTION.unpack_from(data, offset + number * size) for number in range(count)]
    for section in sections:
        if section[1] != _DYNSYM:
            continue
        names = sections[section[6]]
        texts = bytes(data[names[4] : names[4] + names[5]])
        table = bytes(data[section[4] : section[4] + section[5]])
        for name, kind, _, index, _, _ in _SYMBOL.iter_unpack(table):
            if name:
                yield texts[name : texts.index(b"\0", name)], kind >> 4, index


def empty_library(like: bytes | bytearray, name: str) -> bytes:
    """A library for the machine of another one that answers to a name and defines nothing."""
    machine = _HEADER.unpack_from(like)[2]
    texts = b"\0" + name.encode() + b"\0"
    programs = _HEADER.size
    symbol_table = programs + 3 * _PROGRAM.size
    hashes = symbol_table + _SYMBOL.size
    dynamic = hashes + 16
    strings = dynamic + 7 * 16
    tags = [(_SONAME, 1), (_HASH, hashes), (_STRTAB, strings), (_SYMTAB, symbol_table)]
    tags += [(_STRSZ, len(texts)), (_SYMENT, _SYMBOL.size), (0, 0)]
    size = strings + len(texts)
    ident = _IDENT.ljust(16, b"\0")
    return b"".join(
        [
            _HEADER.pack(ident, _SHARED, machine, 1, 0, programs, 0, 0, _HEADER.size, _PROGRAM.size, 3, 64, 0, 0),
            # writable: older loaders put addresses into the dynamic section
            _PROGRAM.pack(_LOAD, _READ_WRITE, 0, 0, 0, size, size, _PAGE),
            _PROGRAM.pack(_DYNAMIC, _READ_WRITE, dynamic, dynamic, dynamic, 7 * 16, 7 * 16, 8),
            _PROGRAM.pack(_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16),  # without it the loader asks for one with code in it
            _SYMBOL.pack(0, 0, 0, 0, 0, 0),
            struct.pack("<4I", 1, 1, 0, 0),
            *(struct.pack("<QQ", tag, value) for tag, value in tags),
            texts,
        ]
    )
