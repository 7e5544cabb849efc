"""`.pyc` files for Python sources, made by the base's own interpreter, so that a container with a read-only root
starts fast.

They are of the kind that is never checked against its source (PEP 552, "unchecked hash-based"): no time goes into
them. The interpreter runs once a layer, over the sources sorted by path, because what a process compiled before can
change the flags that marshal writes; so the bytes follow from the layer's content and the interpreter's release
alone.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from buildx.entries import Entry, file
from edgepack.errors import BuildFailed

_LENGTHS = struct.Struct("<II")
_NOT_COMPILED = 0xFFFFFFFF
_COMPILE = """
import _imp, importlib._bootstrap_external as external, struct, sys
lengths, source_of, out = struct.Struct("<II"), sys.stdin.buffer.read, sys.stdout.buffer
while head := source_of(lengths.size):
    path, source = (source_of(length) for length in lengths.unpack(head))
    try:
        code = compile(source, path.decode("utf-8", "surrogateescape"), "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        out.write(struct.pack("<I", 0xFFFFFFFF))
        continue
    made = external._code_to_hash_pyc(code, _imp.source_hash(external._RAW_MAGIC_NUMBER, source), False)
    out.write(struct.pack("<I", len(made)) + made)
"""


class Compiler(Protocol):
    """A Python that compiles: `buildx.interpreter` here, `buildx.workshop` in a generated Dockerfile's stage, where
    only the standard library is; so this module imports nothing else.
    """

    @property
    def tag(self) -> str:
        """The tag in the name of a `.pyc` file."""

    def run(self, script: str, arguments: Sequence[str], stdin: BinaryIO, stdout: BinaryIO) -> None:
        """Run a script to its end. Raises BuildFailed with its last line."""


def compiled(entries: Iterable[Entry], interpreter: Compiler) -> list[Entry]:
    """The `.pyc` entries of all `.py` entries; a source that does not compile (a template) gets none."""
    sources = sorted((entry for entry in entries if _is_source(entry)), key=lambda entry: entry.path)
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered:
        for entry in sources:
            _ask(entry, asked)
        asked.seek(0)
        interpreter.run(_COMPILE, [], asked, answered)
        answered.seek(0)
        answers = [
            file(_pyc_path(entry.path, interpreter.tag), made)
            for entry, made in zip(sources, _answers(answered), strict=True)
            if made
        ]
    return answers


def _is_source(entry: Entry) -> bool:
    return entry.kind == "file" and entry.path.endswith(".py")


def _pyc_path(path: str, tag: str) -> str:
    source = PurePosixPath(path)
    return str(source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc")


def _ask(entry: Entry, asked: BinaryIO) -> None:
    source = b"".join(entry.source.chunks()) if entry.source else b""
    path = f"/{entry.path}".encode("utf-8", "surrogateescape")
    asked.write(_LENGTHS.pack(len(path), len(source)) + path + source)


def _answers(answered: BinaryIO) -> Iterator[bytes | None]:
    while head := answered.read(4):
        (length,) = struct.unpack("<I", head)
        made = None if length == _NOT_COMPILED else answered.read(length)
        if made is not None and len(made) != length:
            raise BuildFailed("the base's interpreter stopped in the middle of a .pyc file")
        yield made
