"""What `docker save` writes, as an image of ours: for engines that cannot write an OCI layout.

Every engine's tar has a `manifest.json` that names config and layers (moby, "Image tarball"). Their layers are plain
tars there, so a layer's digest is its diff_id, and the image has layers that are not compressed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgepack.errors import BadInput, NotTrusted
from oci._tar_members import Member, members
from oci.blob import BytesBlob, SliceBlob, chunks
from oci.descriptor import Descriptor, PlatformField
from oci.digest import Digest
from oci.image import IMAGE_CONFIG, Image
from oci.source import MANIFEST_LIMIT

LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"


class _Saved(msgspec.Struct):
    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")


class _Rootfs(msgspec.Struct):
    diff_ids: list[str]


class _Config(msgspec.Struct):
    architecture: str
    os: str
    rootfs: _Rootfs
    variant: str | None = None


def read_saved(path: Path) -> Image:
    """Read the one image of a tar; its layers are slices of the file.

    Raises BadInput if it is not such a tar or holds several images, NotTrusted if a layer is not what the config says.
    """
    found = members(path)
    try:
        saved = msgspec.json.decode(_read(path, found["manifest.json"]), type=list[_Saved])
        (image,) = saved
        data = _read(path, found[image.config])
        config = msgspec.json.decode(data, type=_Config)
        layers = tuple(_layer(path, found[name]) for name in image.layers)
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise BadInput(f"'{path}' is not one image as `docker save` writes it: {error}") from error
    if [layer.descriptor.digest for layer in layers] != config.rootfs.diff_ids:
        raise NotTrusted(f"'{path}' has layers that are not those its config names: refused")
    platform = PlatformField(config.architecture, config.os, config.variant)
    return Image(BytesBlob.of(data, IMAGE_CONFIG), layers, platform=platform)


def _read(path: Path, member: Member) -> bytes:
    if member.size > MANIFEST_LIMIT:
        raise NotTrusted(f"'{member.name}' in '{path}' is larger than {MANIFEST_LIMIT} bytes: refused")
    with SliceBlob(path, member.offset, member.size, Descriptor("", "", 0)).open() as file:
        return file.read()


def _layer(path: Path, member: Member) -> SliceBlob:
    slice_ = SliceBlob(path, member.offset, member.size, Descriptor(LAYER_TAR, "", member.size))
    with slice_.open() as file:
        digest = Digest.of(chunks(file))
    return SliceBlob(path, member.offset, member.size, Descriptor(LAYER_TAR, digest, member.size))
