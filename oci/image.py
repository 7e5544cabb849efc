"""`Image` and `Index`: immutable views, from which manifest bytes and digests follow.

An OCI artifact is an image whose manifest has an artifact type; both are the same class here (image-spec,
"Guidelines for Artifact Usage"). Documents are serialized one way only, so the same content always has the
same digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import msgspec

from edgepack.errors import NotTrusted
from oci.blob import Blob, BytesBlob
from oci.descriptor import Descriptor, PlatformField

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = frozenset({IMAGE_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({IMAGE_INDEX, DOCKER_INDEX})


class ManifestDocument(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """The JSON of an image manifest. The spec leaves its media type optional; ours always say it."""

    schema_version: int
    media_type: str | None = None
    config: Descriptor
    layers: list[Descriptor]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class IndexDocument(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """The JSON of an image index."""

    schema_version: int
    media_type: str | None = None
    manifests: list[Descriptor]
    artifact_type: str | None = None
    annotations: dict[str, str] = {}


_Document = TypeVar("_Document", ManifestDocument, IndexDocument)


@dataclass(frozen=True)
class Image:
    """A config, layers and what is said about them.

    `received` is the manifest as it was read from somewhere. Its bytes stay the manifest for as long as they
    say what the fields say, so reading and writing an image of another tool keeps its digest; a changed field
    makes new bytes.
    """

    config: Blob
    layers: tuple[Blob, ...]
    artifact_type: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    platform: PlatformField | None = None
    subject: Descriptor | None = None
    received: BytesBlob | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_manifest(cls, manifest: BytesBlob, blob: Callable[[Descriptor], Blob]) -> Image:
        """Read an image from its manifest; `blob` gives what a descriptor names.

        Raises NotTrusted if it is no manifest.
        """
        document = parse_manifest(manifest.data, manifest.descriptor.digest)
        return cls(
            config=blob(document.config),
            layers=tuple(blob(layer) for layer in document.layers),
            artifact_type=document.artifact_type,
            annotations=document.annotations,
            platform=manifest.descriptor.platform,
            subject=document.subject,
            received=manifest,
        )

    @cached_property
    def manifest(self) -> BytesBlob:
        """The manifest, as the blob that an index or a registry names."""
        document = ManifestDocument(
            schema_version=2,
            media_type=IMAGE_MANIFEST,
            config=self.config.descriptor,
            layers=[layer.descriptor for layer in self.layers],
            artifact_type=self.artifact_type,
            subject=self.subject,
            annotations=dict(sorted(self.annotations.items())),
        )
        if self.received is not None and self._still_says(self.received, document):
            return self.received
        made = BytesBlob.of(msgspec.json.encode(document), IMAGE_MANIFEST)
        said = msgspec.structs.replace(
            made.descriptor,
            platform=self.platform,
            artifact_type=document.artifact_type,
            annotations=document.annotations,
        )
        return BytesBlob(made.data, said)

    def _still_says(self, received: BytesBlob, document: ManifestDocument) -> bool:
        said = parse_manifest(received.data, received.descriptor.digest)
        same = msgspec.structs.replace(said, media_type=IMAGE_MANIFEST) == document
        return same and received.descriptor.platform == self.platform

    @property
    def digest(self) -> str:
        """The digest of the manifest: what the image is known by."""
        return self.manifest.descriptor.digest

    def blobs(self) -> Iterator[Blob]:
        """Config and layers, in order; a blob that is there twice is given once."""
        seen = set()
        for blob in (self.config, *self.layers):
            if blob.descriptor.digest not in seen:
                seen.add(blob.descriptor.digest)
                yield blob


@dataclass(frozen=True)
class Index:
    """Images for several platforms or targets, and referrers of them, under one digest.

    `received` as in Image.
    """

    images: tuple[Image, ...]
    artifact_type: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    received: BytesBlob | None = field(default=None, repr=False, compare=False)

    @cached_property
    def manifest(self) -> BytesBlob:
        """The index document, as a blob."""
        document = IndexDocument(
            schema_version=2,
            media_type=IMAGE_INDEX,
            manifests=[image.manifest.descriptor for image in self.images],
            artifact_type=self.artifact_type,
            annotations=dict(sorted(self.annotations.items())),
        )
        if self.received is not None:
            said = parse_index(self.received.data, self.received.descriptor.digest)
            if msgspec.structs.replace(said, media_type=IMAGE_INDEX) == document:
                return self.received
        return BytesBlob.of(msgspec.json.encode(document), IMAGE_INDEX)

    @property
    def digest(self) -> str:
        """The digest of the index document."""
        return self.manifest.descriptor.digest

    @property
    def entry(self) -> BytesBlob:
        """The document by which a layout, a tar and a registry's tag name this.

        It is the manifest itself where the index would add nothing to its one image: every tool then takes an
        ARM image on an x86 machine without being told the platform. Else it is the index document.
        """
        adds_nothing = len(self.images) == 1 and not self.artifact_type and not self.annotations
        return self.images[0].manifest if adds_nothing and self.received is None else self.manifest

    def blobs(self) -> Iterator[Blob]:
        """Every blob below and with the entry, each once: configs, layers, manifests, the entry last."""
        seen = set()
        for image in self.images:
            for blob in (*image.blobs(), image.manifest):
                if blob.descriptor.digest not in seen:
                    seen.add(blob.descriptor.digest)
                    yield blob
        if self.entry.descriptor.digest not in seen:
            yield self.entry


def parse_manifest(data: bytes, digest: str) -> ManifestDocument:
    """Read the JSON of a manifest. Raises NotTrusted naming `digest` if it is not one."""
    return _parse(data, digest, ManifestDocument, "an image manifest")


def parse_index(data: bytes, digest: str) -> IndexDocument:
    """Read the JSON of an index. Raises NotTrusted naming `digest` if it is not one."""
    return _parse(data, digest, IndexDocument, "an image index")


def _parse(data: bytes, digest: str, kind: type[_Document], noun: str) -> _Document:
    try:
        document = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotTrusted(f"{digest} is not {noun}: {error}") from error
    if document.schema_version != 2:
        raise NotTrusted(f"{digest} has schema version {document.schema_version}, expected 2")
    return document
