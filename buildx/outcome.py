"""What a build gives back: values for a command to print, in the shape that `--json` promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arch.target import Target
from buildx.attest import Attested
from buildx.created import Created
from buildx.layer_cache import Layer
from oci.image import Image


@dataclass(frozen=True)
class LayerLine:
    """One layer as it is reported."""

    digest: str
    size_bytes: int
    kind: str
    cached: bool
    title: str

    @classmethod
    def of(cls, layer: Layer) -> LayerLine:
        """The line of a layer of ours."""
        said = layer.blob.descriptor
        return cls(said.digest, said.size, layer.kind, layer.cached, layer.title)


@dataclass(frozen=True)
class BuiltImage:
    """The image of one target; `flags` are what a container of it needs to reach the accelerator."""

    target: Target
    reference: str
    image: Image
    layers: tuple[LayerLine, ...]
    flags: tuple[str, ...] = ()
    attested: Attested = field(default_factory=Attested, repr=False)

    @property
    def compressed_bytes(self) -> int:
        """What a registry stores and a device pulls."""
        return sum(blob.descriptor.size for blob in self.image.blobs())


@dataclass(frozen=True)
class Built:
    """A finished build. `digest` is the image's where there is one target, else the index's; without a file, `path` and
    `size_bytes` are None.
    """

    reference: str
    digest: str
    images: tuple[BuiltImage, ...]
    path: Path | None
    size_bytes: int | None
    seconds: float
    created: Created
    builder: str = "direct"

    def to_dict(self, parity: Mapping[str, Any]) -> dict[str, Any]:
        """The one object of `--json`."""
        whole = [self._image(each, parity) for each in self.images]
        if len(whole) == 1:
            return {**whole[0], "image": self.reference}
        layers = {line["digest"]: line for each in whole for line in each["layers"]}
        return {
            **whole[0],
            "image": self.reference,
            "digest": self.digest,
            "platform": None,
            "target": None,
            "layers": list(layers.values()),
            "images": whole,
        }

    def _image(self, image: BuiltImage, parity: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "image": image.reference,
            "digest": image.image.digest,
            "platform": str(image.target.platform),
            "target": str(image.target),
            "path": str(self.path) if self.path else None,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            "builder": self.builder,
            "layers": [
                {"digest": each.digest, "size_bytes": each.size_bytes, "kind": each.kind, "cached": each.cached}
                for each in image.layers
            ],
            "parity": dict(parity),
        }
