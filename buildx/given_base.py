"""A base of the user's own: `--base`, an OCI layout as folder or tar, or a place in a registry, with Python in it.

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
from oci.blob import Blob, FileBlob, SliceBlob, verified
from oci.image import LAYER_GZIP, Image, Index
from oci.layout import Layout
from oci.reference import Reference
from oci.registry import Registry
from oci.source import read_index
from oci.tar import read_tar

_PYTHON = re.compile(r"(?:\./)?(usr/(?:local/)?bin)/python(3\.\d+)")
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
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


def given_base(where: str, traits: Traits, cache: Path) -> tuple[Foundation, Traits]:
    """Read a base for a target; the traits come back with the Python that it has. A registry's is pulled into `cache`.

    Raises BadInput when it is not there, has no image for the platform, or no Python 3.10 or newer.
    """
    image, config = _image(where, traits, cache)
    minor, place = _python(image.layers, where)
    environment = dict(line.partition("=")[::2] for line in config.config.env or [])
    layers = tuple(zip(map(_in_oci_terms, image.layers), config.rootfs.diff_ids, strict=True))
    # engines match history to layers by number, so a base that does not keep to that gives up its own lines
    said = sum(1 for line in config.history if not line.get("empty_layer"))
    history = tuple(config.history) if said == len(layers) else ()
    title = f"{where.rstrip('/').rpartition('/')[2]} ({image.digest})"
    foundation = Foundation(title, layers, place, (True,) * len(layers), environment, history)
    return foundation, replace(traits, python=minor, wheel_platform=f"{traits.machine}-{_GLIBC}")


def _image(where: str, traits: Traits, cache: Path) -> tuple[Image, _Config]:
    """The image for a target: in a folder, a tar or a registry, told apart by what lies there."""
    path = Path(where)
    if path.is_dir():
        return _choose(Layout(path).index(), traits, where)
    if path.is_file():
        return _choose(read_tar(path), traits, where)
    try:
        reference = Reference.parse(where)
    except BadInput as error:
        raise BadInput(
            f"--base '{where}' is not there: expected an OCI layout (a folder or a tar), or host/repository:tag"
        ) from error
    with Registry(reference.host) as registry:
        source = registry.source(reference.repository, reference.pointer)
        chosen, config = _choose(read_index(source), traits, where)
        return registry.pull_image(reference.repository, chosen.digest, cache), config


def _choose(index: Index, traits: Traits, where: str) -> tuple[Image, _Config]:
    platform, others = traits.target.platform, []
    for image in index.images:
        if image.platform and image.platform.architecture not in (platform.architecture, ""):
            others.append(image.platform.architecture)
            continue
        try:
            config = msgspec.json.decode(b"".join(verified(image.config)), type=_Config)
        except msgspec.MsgspecError:
            continue  # an artifact, not an image
        if config.architecture == platform.architecture:
            if len(config.rootfs.diff_ids) != len(image.layers):
                raise NotTrusted(f"--base '{where}': the layers of {image.digest} are not those its config names")
            return image, config
        others.append(config.architecture)
    raise BadInput(f"--base '{where}' has no image for {platform}: it has {', '.join(sorted(others)) or 'none'}")


def _in_oci_terms(layer: Blob) -> Blob:
    """The same layer under OCI's media type: a manifest holds docker's or OCI's, not both."""
    said = layer.descriptor
    if said.media_type != _DOCKER_LAYER or not isinstance(layer, FileBlob | SliceBlob):
        return layer
    return replace(layer, descriptor=msgspec.structs.replace(said, media_type=LAYER_GZIP))


def _python(layers: Iterable[Blob], where: str) -> tuple[str, Place]:
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


def _names(layer: Blob, where: str) -> Iterator[str]:
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
