"""What an image's bytes are spent on: parts and largest files, so that the next cut can be seen before it is made."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from buildx.zstd import MAGIC, open_zstd
from edgepack.errors import BadInput
from oci.blob import Blob
from oci.image import Image

_CHUNK = 1 << 18
# The first pattern that a path begins with names its part; `{}` is what the pattern's group found.
_PARTS = (
    (r"opt/edgepack/app/", "edgepack's agent"),
    (r"opt/edgepack/bundle/", "the bundle"),
    (r"(?:.*/)?(?:site|dist)-packages/([A-Za-z0-9_]+)", "{}"),
    (r"opt/edgepack/site/([A-Za-z0-9_]+)", "{}"),
    (r"usr/(?:local/)?lib/python3[^/]*/", "Python's standard library"),
    (r"usr/(?:local/)?bin/python3", "Python itself"),
    (r"(?:usr/)?lib(?:64)?/", "C libraries"),
    (r"usr/share/zoneinfo/", "time zones"),
)


@dataclass(frozen=True)
class Size:
    """Bytes of a part or file. `packed_bytes` is its share of its layers' files, as far as that can be told apart."""

    name: str
    packed_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True)
class Sizes:
    """The parts of an image and its largest files, each the largest first."""

    parts: list[Size]
    largest: list[Size]


def sizes(image: Image, files: int = 12) -> Sizes:
    """Read all layers of an image. Raises BadInput for one that does not read as a tar."""
    seen = [size for layer in image.layers for size in _layer(layer)]
    by_part: dict[str, list[Size]] = defaultdict(list)
    for size in seen:
        by_part[_part(size.name)].append(size)
    parts = [
        Size(name, sum(each.packed_bytes for each in found), sum(each.unpacked_bytes for each in found))
        for name, found in by_part.items()
    ]
    return Sizes(_sorted(parts), _sorted(seen)[:files])


def _sorted(found: Iterable[Size]) -> list[Size]:
    return sorted(found, key=lambda size: (-size.packed_bytes, size.name))


def _part(path: str) -> str:
    for pattern, name in _PARTS:
        if match := re.match(pattern, path):
            package = match.groups() and re.sub(r"(_libs|-.*)$", "", match[1])
            return name.format(package)
    return "the rest of the base"


def _layer(layer: Blob) -> Iterator[Size]:
    """Each file of a layer. A layer's file is shared out by what each would take if it were packed alone."""
    alone: list[tuple[str, int, int]] = []
    try:
        with layer.open() as packed, _unpacked(packed) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content:
                    alone.append((member.name.removeprefix("./"), _packed(cast(BinaryIO, content)), member.size))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadInput(f"layer {layer.descriptor.digest} does not read as a tar: {error}") from error
    share = layer.descriptor.size / (sum(packed for _, packed, _ in alone) or 1)
    for name, packed_alone, unpacked in alone:
        yield Size(name, round(packed_alone * share), unpacked)


def _packed(content: BinaryIO) -> int:
    pack, size = zlib.compressobj(1), 0
    while data := content.read(_CHUNK):
        size += len(pack.compress(data))
    return size + len(pack.flush())


@contextmanager
def _unpacked(file: BinaryIO) -> Iterator[BinaryIO]:
    """Not left to tarfile: its streams read only the first member of a gzip file, and ours have many."""
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(BinaryIO, unpacked)
    elif magic == MAGIC:
        with open_zstd(file) as unpacked_frames:
            yield unpacked_frames
    else:
        yield file
