"""A base of the user's own: `--base`, an OCI layout as folder or tar, with Python in it.

Its layers are taken as they are. Without a lock that pins an interpreter, no bytecode is made and nothing is
compressed anew.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from arch.traits import Traits
from buildx.encoders import unpack_zstd
from buildx.image import Foundation
from buildx.wheel_files import Place
from edgepack.errors import BadInput, NotTrusted
from oci.blob import Blob, verified
from oci.image import Image, Index
from oci.layout import Layout
from oci.tar import read_tar

_PYTHON = re.compile(r"(?:\./)?(usr/(?:local/)?bin)/python(3\.\d+)")
_GLIBC = "manylinux_2_28"  # what every base with a supported glibc has


class _Settings(msgspec.Struct):
    env: list[str] | None = msgspec.field(name="Env", default=None)


class _Rootfs(msgspec.Struct):
    diff_ids: list[str]


class _Config(msgspec.Struct):
    rootfs: _Rootfs
    architecture: str = ""
    config: _Settings = msgspec.field(default_factory=_Settings)
    history: list[dict[str, object]] = []


def given_base(where: Path, traits: Traits) -> tuple[Foundation, Traits]:
    """Read a base for a target; the traits come back with the Python that it has.

    Raises BadInput when it is not a layout, has no image for the platform, or no Python 3.10 or newer.
    """
    image, config = _choose(_open(where), traits, where)
    minor, place = _python(image.layers, where)
    environment = dict(line.partition("=")[::2] for line in config.config.env or [])
    layers = tuple(zip(image.layers, config.rootfs.diff_ids, strict=True))
    title = f"{where.name} ({image.digest})"
    # engines match history to layers by number, so a base that does not keep to that gives up its own lines
    history = tuple(config.history)
    said = sum(1 for line in history if not line.get("empty_layer"))
    foundation = Foundation(
        title, layers, place, (True,) * len(layers), environment, history if said == len(layers) else ()
    )
    return foundation, replace(traits, python=minor, wheel_platform=f"{traits.machine}-{_GLIBC}")


def _open(where: Path) -> Index:
    if where.is_dir():
        return Layout(where).index()
    if where.is_file():
        return read_tar(where)
    raise BadInput(f"--base '{where}' is not there: expected an OCI layout, as a folder or a tar")


def _choose(index: Index, traits: Traits, where: Path) -> tuple[Image, _Config]:
    platform, others = traits.target.platform, []
    for image in index.images:
        try:
            config = msgspec.json.decode(b"".join(verified(image.config)), type=_Config)
        except msgspec.MsgspecError:
            continue  # an artifact, not an image
        if config.architecture == platform.architecture:
            if len(config.rootfs.diff_ids) != len(image.layers):
                raise NotTrusted(
                    f"--base '{where}': image {image.digest} has {len(image.layers)} layers, its config says otherwise"
                )
            return image, config
        others.append(config.architecture)
    raise BadInput(f"--base '{where}' has no image for {platform}: it has {', '.join(sorted(others)) or 'none'}")


def _python(layers: Iterable[Blob], where: Path) -> tuple[str, Place]:
    """The newest Python of a base, one under /usr/local before one of the distribution."""
    found = {match.groups() for layer in layers for name in _names(layer, where) if (match := _PYTHON.fullmatch(name))}
    usable = sorted(
        ((int(minor.split(".")[1]), folder) for folder, minor in found), key=lambda each: ("local" in each[1], each[0])
    )
    if not usable or usable[-1][0] < 10:
        raise BadInput(f"--base '{where}' has no Python 3.10 or newer in /usr/bin or /usr/local/bin: expected one")
    minor, folder = usable[-1]
    packages = "site-packages" if "local" in folder else "dist-packages"
    return f"3.{minor}", Place(f"/{folder}/python3.{minor}", f"usr/local/lib/python3.{minor}/{packages}")


def _names(layer: Blob, where: Path) -> Iterator[str]:
    try:
        with layer.open() as packed, _unpacked(packed) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                yield member.name
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadInput(f"--base '{where}': layer {layer.descriptor.digest} does not read as a tar: {error}") from error


def _unpacked(file: BinaryIO) -> BinaryIO:
    """A layer's tar. Not left to tarfile: its streams read only the first member of a gzip file, and ours have many."""
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    return io.BytesIO(unpack_zstd(file.read())) if magic == b"\x28\xb5\x2f\xfd" else file
