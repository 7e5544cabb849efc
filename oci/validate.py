"""Prove an image: every blob that it names is there, whole and what it says it is.

What refers to it (SBOM, provenance, parity report, signature) is read as well, and in a folder or file every other
blob that lies there. All faults are gathered, so one run shows everything that is wrong. `edgepack verify` prints this,
and the tests of every room that writes images ask it. Signatures are another question, asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from edgepack.errors import EdgepackError, NotTrusted, Unreachable
from oci._layer_digest import BlobFacts, can_unpack, compression_of, read_facts
from oci.blob import Blob
from oci.descriptor import Descriptor, PlatformField
from oci.digest import Digest
from oci.image import (
    IMAGE_CONFIG,
    INDEXES,
    MANIFESTS,
    Index,
    IndexDocument,
    ManifestDocument,
    parse_index,
    parse_manifest,
)
from oci.source import Source, read_document
from oci.tar import Tar

_DEEPEST = 3  # an index.json that names an index of indexes; nothing real goes deeper
_CONFIG_LIMIT = 4 << 20  # bytes
_Parsed = TypeVar("_Parsed", IndexDocument, ManifestDocument)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one blob; what in a tar is no blob is named by its place instead of a digest."""

    digest: str
    message: str

    def __str__(self) -> str:
        return f"{self.digest}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What was read, and what was wrong with it.

    `images` are all manifests, `referrers` those among them that say something about another. `unchecked_layers` are
    layers whose compression this Python cannot read.
    """

    faults: tuple[Fault, ...]
    images: int
    referrers: int
    blobs: int
    size_bytes: int
    unchecked_layers: int


class ImageConfig(msgspec.Struct, frozen=True):
    """The part of an image's config that its layers and its platform are held against."""

    class Rootfs(msgspec.Struct, frozen=True):
        """The digests of the layers' tars, uncompressed."""

        diff_ids: list[str]

    rootfs: Rootfs
    architecture: str = ""
    os: str = ""
    variant: str | None = None


def validate(where: Source | Index) -> list[Fault]:
    """All faults of what a layout, a tar, a registry's tag or an index in memory holds; an empty list is a
    sound one.
    """
    return list(examine(where).faults)


def examine(where: Source | Index, progress: Callable[[Descriptor], None] | None = None) -> Report:
    """Read every byte once and report. `progress` is called with each blob before it is read.

    Raises Unreachable if a registry stops to answer, BadInput or NotTrusted if there is nothing to begin
    with: no layout at all, or an index.json that is none.
    """
    source = _InMemory(where) if isinstance(where, Index) else where
    examiner = _Examiner(source, progress or (lambda descriptor: None))
    for entry in source.top():
        examiner.entry(entry, 0)
    examiner.beside()
    if isinstance(source, Tar):
        examiner.faults += [Fault(place, message) for place, message in source.frame_faults()]
    return examiner.report()


@dataclass(frozen=True)
class _InMemory:
    """An index value seen as a source."""

    index: Index
    name: str = "this index"

    def top(self) -> list[Descriptor]:
        return [self.index.entry.descriptor]

    def find(self, descriptor: Descriptor) -> Blob | None:
        held = (blob for blob in self.index.blobs() if blob.descriptor.digest == descriptor.digest)
        return next(held, None)

    def referrers(self, digests: Collection[str]) -> list[Descriptor]:
        return []

    def held(self) -> list[Descriptor]:
        return []


@dataclass
class _Examiner:
    source: Source
    progress: Callable[[Descriptor], None]
    faults: list[Fault] = field(default_factory=list)
    facts: dict[str, BlobFacts | None] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    indexes: set[str] = field(default_factory=set)
    referrers: set[str] = field(default_factory=set)
    unchecked: set[str] = field(default_factory=set)

    def report(self) -> Report:
        read = [facts for facts in self.facts.values() if facts is not None]
        return Report(
            tuple(dict.fromkeys(self.faults)),
            len(self.images),
            len(self.referrers),
            len(read),
            sum(facts.size for facts in read),
            len(self.unchecked),
        )

    def fault(self, digest: str, message: str) -> None:
        self.faults.append(Fault(digest, message))

    def entry(self, descriptor: Descriptor, depth: int) -> None:
        """An index or a manifest, and all below it."""
        if descriptor.media_type in INDEXES and depth < _DEEPEST:
            if document := self._document(descriptor, parse_index):
                self._media_type(descriptor, document.media_type)
                self.indexes.add(descriptor.digest)
                for below in document.manifests:
                    self.entry(below, depth + 1)
        elif descriptor.media_type in MANIFESTS:
            if manifest := self._document(descriptor, parse_manifest):
                self._media_type(descriptor, manifest.media_type)
                self._image(descriptor, manifest)
        else:
            self.fault(
                descriptor.digest,
                f"has media type '{descriptor.media_type}', expected an image manifest or index",
            )

    def beside(self) -> None:
        """What was not named from above: referrers, and theirs, then any other blob."""
        asked: set[str] = set()
        while fresh := sorted((self.images | self.indexes) - asked):
            asked.update(fresh)
            for descriptor in self._said_of(fresh):
                self.referrers.add(descriptor.digest)
                self.entry(descriptor, _DEEPEST)
        for descriptor in self.source.held():
            if descriptor.digest not in self.facts:
                self._blob(descriptor)

    def _said_of(self, digests: list[str]) -> list[Descriptor]:
        try:
            return [each for each in self.source.referrers(digests) if each.digest not in self.images]
        except NotTrusted as error:
            self.fault(digests[0], f"has a list of referrers that does not read: {error}")
            return []

    def _document(self, descriptor: Descriptor, parse: Callable[[bytes, str], _Parsed]) -> _Parsed | None:
        if not self._blob(descriptor):
            return None
        try:
            return parse(read_document(self.source, descriptor).data, descriptor.digest)
        except NotTrusted as error:
            self.fault(descriptor.digest, str(error).removeprefix(f"{descriptor.digest} "))
            return None

    def _media_type(self, descriptor: Descriptor, said: str | None) -> None:
        if said is not None and said != descriptor.media_type:
            self.fault(descriptor.digest, f"calls itself '{said}', its descriptor says '{descriptor.media_type}'")

    def _image(self, descriptor: Descriptor, manifest: ManifestDocument) -> None:
        self.images.add(descriptor.digest)
        config_is_whole = self._blob(manifest.config)
        layers = [(layer, self._blob(layer)) for layer in manifest.layers]
        if manifest.config.media_type == IMAGE_CONFIG and manifest.artifact_type is None and config_is_whole:
            self._runnable(descriptor, manifest.config, layers)

    def _runnable(
        self, descriptor: Descriptor, named: Descriptor, layers: list[tuple[Descriptor, BlobFacts | None]]
    ) -> None:
        """An image that an engine runs: its config must tell the truth about platform and layers."""
        config = self._config(named)
        if config is None:
            return
        self._platform(descriptor, named, config)
        if len(config.rootfs.diff_ids) != len(layers):
            self.fault(named.digest, f"lists {len(config.rootfs.diff_ids)} diff_ids for {len(layers)} layers")
            return
        for (layer, facts), diff_id in zip(layers, config.rootfs.diff_ids, strict=True):
            self._layer(layer, facts, diff_id)

    def _config(self, named: Descriptor) -> ImageConfig | None:
        blob = self.source.find(named)
        if blob is None or named.size > _CONFIG_LIMIT:
            self.fault(named.digest, f"is an image config of {named.size} bytes, at most {_CONFIG_LIMIT} are read")
            return None
        with blob.open() as file:
            data = file.read()
        try:
            return msgspec.json.decode(data, type=ImageConfig)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.fault(named.digest, f"is not an image config: {error}")
            return None

    def _platform(self, descriptor: Descriptor, named: Descriptor, config: ImageConfig) -> None:
        if not config.architecture or not config.os:
            self.fault(named.digest, "the platform is missing: the config names no architecture or no os")
            return
        said, runs = descriptor.platform, PlatformField(config.architecture, config.os, config.variant)
        if said is not None and (said.architecture, said.os) != (runs.architecture, runs.os):
            self.fault(
                descriptor.digest,
                f"the index says {said.os}/{said.architecture}, the config {runs.os}/{runs.architecture}",
            )

    def _layer(self, layer: Descriptor, facts: BlobFacts | None, diff_id: str) -> None:
        if "layer" not in layer.media_type and "rootfs" not in layer.media_type:
            self.fault(layer.digest, f"has media type '{layer.media_type}', expected one of an image layer")
        elif not can_unpack(compression_of(layer.media_type)):
            self.unchecked.add(layer.digest)
        elif facts is not None and facts.broken:
            self.fault(layer.digest, facts.broken)
        elif facts is not None and facts.diff_id != diff_id:
            self.fault(layer.digest, f"unpacks to {facts.diff_id}, the config's diff_id says {diff_id}")

    def _blob(self, descriptor: Descriptor) -> BlobFacts | None:
        """Read a blob once, however often it is named.

        Returns what it is, or None if it is not what it should be.
        """
        try:
            Digest.parse(descriptor.digest)
        except NotTrusted as error:
            self.fault(descriptor.digest[:100], str(error))
            return None
        if descriptor.digest not in self.facts:
            self.facts[descriptor.digest] = self._read(descriptor)
        facts = self.facts[descriptor.digest]
        if facts is not None and facts.size != descriptor.size:
            self.fault(descriptor.digest, f"is {facts.size} bytes, its descriptor says {descriptor.size}")
            return None
        return facts if facts is not None and facts.digest == descriptor.digest else None

    def _read(self, descriptor: Descriptor) -> BlobFacts | None:
        self.progress(descriptor)
        try:
            blob = self.source.find(descriptor)
            if blob is None:
                self.fault(descriptor.digest, "is missing")
                return None
            facts = read_facts(blob, descriptor.media_type, descriptor.size)
        except Unreachable:
            raise
        except (EdgepackError, OSError) as error:
            self.fault(descriptor.digest, f"could not be read: {error}")
            return None
        if facts.digest != descriptor.digest and facts.size == descriptor.size:
            self.fault(descriptor.digest, f"is damaged: its bytes have the digest {facts.digest}")
        return facts
