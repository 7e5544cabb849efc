"""Small real images for the tests of this room: tars, gzipped in several members, with configs that tell the truth."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile

from oci import BytesBlob, Digest, Image, Index, PlatformField
from oci.image import EMPTY_CONFIG, IMAGE_CONFIG, LAYER_GZIP

LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"


def tar_of(name: str, data: bytes) -> bytes:
    """A tar with one file."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return held.getvalue()


def gzip_layer(raw: bytes, members: int = 3) -> BytesBlob:
    """A layer of several gzip members, as the direct builder's splice encoding makes them."""
    step = -(-len(raw) // members)
    pieces = [gzip.compress(raw[at : at + step], mtime=0) for at in range(0, len(raw), step)]
    return BytesBlob.of(b"".join(pieces), LAYER_GZIP)


def image(architecture: str = "amd64", size: int = 5000, compressed: bool = True) -> Image:
    """An image with two layers, one shared by every image that this makes."""
    shared, own = tar_of("shared", b"s" * 2000), tar_of("own", random.Random(architecture).randbytes(size))
    layers = [gzip_layer(shared), gzip_layer(own) if compressed else BytesBlob.of(own, LAYER_TAR)]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(shared), Digest.of(own)]},
    }
    return Image(
        BytesBlob.of(json.dumps(config).encode(), IMAGE_CONFIG),
        tuple(layers),
        annotations={"io.edgepack.target": architecture},
        platform=PlatformField(architecture, "linux"),
    )


def artifact(data: bytes = b"weights", subject: Image | None = None) -> Image:
    """An artifact with an empty config, by choice a referrer of an image."""
    return Image(
        BytesBlob.of(b"{}", EMPTY_CONFIG),
        (BytesBlob.of(data, "application/vnd.cncf.model.weight.v1.raw"),),
        artifact_type="application/vnd.example.thing.v1+json",
        subject=subject.manifest.descriptor if subject else None,
    )


def bundle() -> Index:
    """An index of artifacts with an artifact type of its own, as a bundle is."""
    images = (artifact(b"for x86"), artifact(b"for arm"))
    return Index(images, artifact_type="application/vnd.example.thing.v1+json", annotations={"name": "thing"})


ONE = Index((image("arm64"),))
TWO = Index((image("arm64"), image("amd64")))
LARGE = Index((image("riscv64", size=20 << 20, compressed=False),))
