"""What a base of the user's own holds, as far as an image depends on it: Pythons, the C library, what Python has.

Read out of its layers as they lie there; nothing is unpacked and nothing of it executed. What was seen is kept by the
digest of the image, because a base with CUDA in it has gigabytes to walk through.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from buildx.zstd import MAGIC, open_zstd
from durable.files import write_atomically
from edgepack.errors import BadInput
from oci.blob import Blob
from oci.digest import Digest

_PYTHON = re.compile(r"(usr/(?:local/)?bin)/python(3\.\d+)")
_PACKAGE = re.compile(r"(?:.*/)?(?:site|dist)-packages/([A-Za-z0-9_]+)(?:/__init__\.py|\.py)")
_C_LIBRARY = re.compile(r"(?:usr/)?lib(?:64)?/(?:[a-z0-9_]+-linux-gnu/)?libc\.so\.6")
_RELEASE = re.compile(rb"stable release version (\d+\.\d+)")
_TEGRA = "etc/nv_tegra_release"
_SMALL = 16 << 20  # bytes: no C library is larger


class Survey(msgspec.Struct, frozen=True):
    """What was seen. `pythons` are pairs of folder and minor version, `l4t` the text of NVIDIA's release file."""

    pythons: list[tuple[str, str]] = []
    packages: list[str] = []
    glibc: str | None = None
    l4t: str | None = None


def survey(digest: str, layers: Iterable[Blob], where: str, cache: Path) -> Survey:
    """Look through the layers of an image, or remember having done so. Raises BadInput for one that does not read."""
    note = cache / f"{Digest.parse(digest).hex}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(note.read_bytes(), type=Survey)
    found = _walk(layers, where)
    with contextlib.suppress(OSError):  # only a shortcut for the next build
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, msgspec.json.encode(found))
    return found


def _walk(layers: Iterable[Blob], where: str) -> Survey:
    pythons, packages = set(), set()
    texts: dict[str, str] = {}
    for layer in layers:
        for path, content in _files(layer, where):
            if match := _PYTHON.fullmatch(path):
                pythons.add((match[1], match[2]))
            elif match := _PACKAGE.fullmatch(path):
                packages.add(match[1].lower().replace("_", "-"))
            elif _C_LIBRARY.fullmatch(path) and (release := _RELEASE.search(content())):
                texts["glibc"] = release[1].decode()
            elif path == _TEGRA:
                texts["l4t"] = content().decode("utf-8", "replace")
    return Survey(sorted(pythons), sorted(packages), texts.get("glibc"), texts.get("l4t"))


def _files(layer: Blob, where: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The path of each member of a layer, and how to have its content."""
    try:
        with layer.open() as packed, _unpacked(packed) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                yield member.name.removeprefix("./"), _reader(tar, member)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadInput(f"--base '{where}': layer {layer.descriptor.digest} does not read as a tar: {error}") from error


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        content = tar.extractfile(member) if member.isfile() and member.size <= _SMALL else None
        return content.read() if content else b""

    return read


def _unpacked(file: BinaryIO) -> BinaryIO:
    """A layer's tar. Not left to tarfile: its streams read only the first member of a gzip file, and ours have many."""
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    return open_zstd(file) if magic == MAGIC else file
