"""What compresses anew. The rule: never the zlib that happens to be in this Python, whose bytes vary by
version.

`Pinned` runs the zlib of the base's own release, in the base's own interpreter for this machine. `Stored`
(buildx/splice.py) compresses nothing. `Zstd` is opt-in: its bytes follow the version of the installed library.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from buildx.entries import CHUNK
from buildx.interpreter import Interpreter
from buildx.splice import Encoder, Stored
from buildx.zstd import LAYER_ZSTD, zstd_library
from oci.image import LAYER_GZIP

COMPRESSIONS = ("splice", "gzip", "zstd")
_LEVELS = {"splice": 6, "gzip": 9}
_ZSTD_LEVEL = 3
_DEFLATE = """
import sys, zlib
pack = zlib.compressobj(int(sys.argv[1]), zlib.DEFLATED, 31)
while data := sys.stdin.buffer.read(1 << 20):
    sys.stdout.buffer.write(pack.compress(data))
sys.stdout.buffer.write(pack.flush())
"""


@dataclass(frozen=True)
class Pinned:
    """gzip by the zlib that the lock names."""

    interpreter: Interpreter
    level: int
    splices: bool
    media_type: str = LAYER_GZIP

    @property
    def name(self) -> str:
        """Part of every cache key."""
        return f"zlib {self.interpreter.zlib} -{self.level}{' splice' if self.splices else ''}"

    def encode(self, raw: BinaryIO, out: BinaryIO) -> None:
        """Compress a run into one gzip member."""
        out.flush()
        self.interpreter.run(_DEFLATE, [str(self.level)], raw, out)
        out.seek(0, 2)


class HostZlib:
    """gzip by this Python's zlib: only for `--compression gzip` on a base of the user's own, where nothing pins one."""

    media_type = LAYER_GZIP
    splices = False
    name = f"zlib of this machine {zlib.ZLIB_RUNTIME_VERSION} -9"

    def encode(self, raw: BinaryIO, out: BinaryIO) -> None:
        """Compress a run into one gzip member."""
        pack = zlib.compressobj(9, zlib.DEFLATED, 31)
        while data := raw.read(CHUNK):
            out.write(pack.compress(data))
        out.write(pack.flush())


class Zstd:
    """zstd frames; smaller and faster to unpack, but older engines do not load them."""

    media_type = LAYER_ZSTD
    splices = False

    def __init__(self) -> None:
        self._library = zstd_library()
        self.name = f"{self._library.__name__} {_version(self._library)} -{_ZSTD_LEVEL}"

    def encode(self, raw: BinaryIO, out: BinaryIO) -> None:
        """Compress a run into one frame."""
        pack = self._library.ZstdCompressor(level=_ZSTD_LEVEL)
        if hasattr(pack, "compressobj"):  # the library `zstandard`; Python 3.14 has its own
            pack = pack.compressobj()
        while data := raw.read(CHUNK):
            out.write(pack.compress(data))
        out.write(pack.flush())


def encoder_for(compression: str, interpreter: Interpreter | None) -> Encoder:
    """The encoder of `--compression`. Raises BadInput when zstd is asked for and no library for it is there."""
    if compression == "zstd":
        return Zstd()
    if interpreter is None:
        return Stored() if compression == "splice" else HostZlib()
    return Pinned(interpreter, _LEVELS[compression], compression == "splice")


def _version(library: Any) -> str:
    return str(getattr(library, "zstd_version", None) or getattr(library, "__version__", ""))
