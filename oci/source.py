"""How an index is read from any place that holds blobs by digest: a layout folder, a tar, a registry.

A place says what it names first, finds blobs, and lists what is said about them. Every document is checked against its
digest before it is parsed; layers and configs are only named here, they are checked when they are read
(`blob.verified`) or by `validate`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

import msgspec

from edgepack.errors import BadInput, NotTrusted
from oci.blob import Blob, BytesBlob, verified
from oci.descriptor import Descriptor
from oci.image import (
    IMAGE_INDEX,
    IMAGE_MANIFEST,
    INDEXES,
    MANIFESTS,
    Image,
    Index,
    IndexDocument,
    ManifestDocument,
    parse_index,
    parse_manifest,
)

UNKNOWN_TYPE = "application/octet-stream"
MANIFEST_LIMIT = 4 << 20  # bytes; what registries accept too (distribution-spec, "Pushing Manifests")
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"  # by this `docker load` names an image where containerd stores it


class Source(Protocol):
    """A place that images are read from."""

    @property
    def name(self) -> str:
        """What to call the place in a message."""

    def top(self) -> list[Descriptor]:
        """The documents that the place names first: the `manifests` of an index.json, or what a tag points
        to.
        """

    def find(self, descriptor: Descriptor) -> Blob | None:
        """The blob that a descriptor names, or None if the place lacks it. Does not check its bytes."""

    def referrers(self, digests: Collection[str]) -> list[Descriptor]:
        """The manifests whose subject is one of these: what is said about them."""

    def held(self) -> list[Descriptor]:
        """Every blob that lies here, where the place can list them."""


def read_index(source: Source, ref_name: str | None = None) -> Index:
    """Read what the place holds, or the one entry of it that is called `ref_name`.

    One entry that is an index is that index; manifests alone are read as an index of them.
    Raises BadInput if nothing is there by that name, NotTrusted if a document is missing or damaged.
    """
    top = [entry for entry in source.top() if ref_name is None or entry.annotations.get(REF_NAME) == ref_name]
    if not top:
        raise BadInput(f"'{source.name}' holds no image" + (f" called '{ref_name}'" if ref_name else ""))
    if len(top) == 1 and top[0].media_type in INDEXES:
        received = read_document(source, without_names(top[0]))
        document = parse_index(received.data, received.descriptor.digest)
        images = tuple(read_image(source, entry) for entry in document.manifests)
        return Index(images, document.artifact_type, document.annotations, received)
    return Index(tuple(read_image(source, without_names(entry)) for entry in top))


def read_image(source: Source, descriptor: Descriptor) -> Image:
    """Read one image by the descriptor of its manifest."""
    if descriptor.media_type not in MANIFESTS:
        raise BadInput(
            f"'{source.name}' names {descriptor.digest} of type '{descriptor.media_type}': expected an image manifest"
        )

    def blob(wanted: Descriptor) -> Blob:
        found = source.find(wanted)
        if found is None:
            raise NotTrusted(f"'{source.name}' lacks the blob {wanted.digest} that {descriptor.digest} names")
        return found

    return Image.of_manifest(read_document(source, descriptor), blob)


def read_document(source: Source, descriptor: Descriptor) -> BytesBlob:
    """Read a manifest or index and check it.

    Raises NotTrusted if it is missing, damaged or larger than 4 MiB.
    """
    if descriptor.size > MANIFEST_LIMIT:
        raise NotTrusted(
            f"{descriptor.digest} says it is {descriptor.size} bytes, a manifest has at most {MANIFEST_LIMIT}"
        )
    blob = source.find(descriptor)
    if blob is None:
        raise NotTrusted(f"'{source.name}' lacks the manifest {descriptor.digest}")
    return BytesBlob(b"".join(verified(blob)), descriptor)


def find_referrers(source: Source, held: Iterable[Descriptor], digests: Collection[str]) -> list[Descriptor]:
    """Look for manifests with one of these subjects where nothing lists them: among the blobs themselves. One that is
    damaged is none.
    """
    found = []
    for descriptor in held:
        blob = source.find(descriptor) if descriptor.size <= MANIFEST_LIMIT else None
        manifest = _read_manifest(blob) if blob else None
        if manifest is not None and manifest.subject is not None and manifest.subject.digest in digests:
            media_type = manifest.media_type or IMAGE_MANIFEST
            found.append(Descriptor(media_type, descriptor.digest, descriptor.size))
    return found


def _read_manifest(blob: Blob) -> ManifestDocument | None:
    with blob.open() as file:
        if file.read(1) != b"{":  # most blobs are no JSON, and are not read whole for that
            return None
    try:
        return parse_manifest(b"".join(verified(blob)), blob.descriptor.digest)
    except NotTrusted:
        return None


def without_names(descriptor: Descriptor) -> Descriptor:
    """The descriptor as the image gives it, without the names that an index.json added."""
    kept = {key: text for key, text in descriptor.annotations.items() if key not in (REF_NAME, CONTAINERD_NAME)}
    return msgspec.structs.replace(descriptor, annotations=kept)


def with_names(descriptor: Descriptor, ref_name: str | None) -> Descriptor:
    """The descriptor as an index.json holds it: the tag of `name:tag` as ref name, and the whole for
    containerd.
    """
    if ref_name is None:
        return descriptor
    names = {REF_NAME: tag_of(ref_name), CONTAINERD_NAME: _docker_name(ref_name)}
    return msgspec.structs.replace(descriptor, annotations=dict(sorted({**descriptor.annotations, **names}.items())))


def _docker_name(ref_name: str) -> str:
    """The name in full: docker shows `docker.io/library/x:1` as `x:1` and refuses an `x:1` found in an image
    store.
    """
    name = ref_name if ":" in ref_name.rpartition("/")[2] else f"{ref_name}:latest"
    first, slash, _ = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def tag_of(ref_name: str) -> str:
    """The tag of `host:port/name:tag`: what stands behind the last colon, `latest` where there is none."""
    return ref_name.rpartition("/")[2].partition(":")[2] or "latest"


def index_json(index: Index, ref_name: str | None) -> bytes:
    """The index.json of a layout that holds exactly this index."""
    top = [with_names(index.entry.descriptor, ref_name)]
    return msgspec.json.encode(IndexDocument(schema_version=2, media_type=IMAGE_INDEX, manifests=top))
