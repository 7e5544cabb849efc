"""`edgepack inspect IMAGE --sizes`: what an image's bytes are spent on, the next cut first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from oci.image import Image


def image_sizes(source: Path) -> dict[str, Any]:
    """The object that `--json` prints. Raises BadInput for what holds no image."""
    from bundle.media import PIPELINE
    from edgepack.commands.inspect import index_in

    index = index_in(source)
    if index is None or any(image.artifact_type == PIPELINE for image in index.images):
        kind = "a project" if index is None else "a bundle"
        raise BadInput(f"'{source}' is {kind}: --sizes takes the tar or layout of an image, see: edgepack build")
    return {"kind": "image", "digest": index.digest, "images": [_sizes(image) for image in index.images]}


def size_lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = []
    for image in found["images"]:
        lines.append(f"{image['platform']}: {image['digest']}, {image['packed_bytes'] / 1e6:.1f} MB compressed")
        lines.append("   compressed    unpacked  part")
        lines += [_line(each) for each in image["parts"]]
        lines.append("   compressed    unpacked  file")
        lines += [_line(each) for each in image["largest"]]
    return lines


def _line(each: dict[str, Any]) -> str:
    return f"  {each['packed_bytes'] / 1e6:8.2f} MB {each['unpacked_bytes'] / 1e6:8.2f} MB  {each['name']}"


def _sizes(image: Image) -> dict[str, Any]:
    from dataclasses import asdict

    from buildx.sizes import sizes

    found = sizes(image)
    return {
        "digest": image.digest,
        "platform": str(image.platform.architecture) if image.platform else None,
        "packed_bytes": sum(layer.descriptor.size for layer in image.layers),
        "parts": [asdict(each) for each in found.parts],
        "largest": [asdict(each) for each in found.largest],
    }
