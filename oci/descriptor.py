"""What OCI documents say about a blob (image-spec, "OCI Content Descriptors")."""

from __future__ import annotations

import msgspec


class PlatformField(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `platform` of a descriptor in an index."""

    architecture: str
    os: str
    variant: str | None = None


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Media type, digest and size in bytes of one blob; annotations say what it is to us."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    artifact_type: str | None = None
    platform: PlatformField | None = None

    def __post_init__(self) -> None:
        # JSON encoders take a str but not a subclass of it, so a `Digest` given here becomes the plain text
        # that it is
        if type(self.digest) is not str:
            msgspec.structs.force_setattr(self, "digest", str(self.digest))
