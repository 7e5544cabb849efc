"""Bringing a bundle's blobs here: only those that are missing, resumed where they were cut, visible only when
they are right.

All that can be known from the manifest is checked before the first blob: that it was assigned, fits this
device, and has room.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from arch.target import Target
from bundle import media
from bundle.bundle import SPEC_LIMIT, Bundle
from bundle.pipeline import PipelineSpec
from edge_agent.folders import Folders
from edge_agent.link.trust import Trust
from edgepack.errors import BadInput, NotTrusted, RuntimeFailed, Unreachable
from fleet.messages import Assigned
from oci.blob import BytesBlob, chunks
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.image import IMAGE_MANIFEST, ManifestDocument, parse_manifest
from oci.layout import Layout
from oci.source import MANIFEST_LIMIT

HEADROOM = 1.1  # of what the missing blobs take: block sizes, folders, the state's own growth
_LAYERS = (media.MODEL, media.WHEEL, media.GOLDEN)


class NoRoom(RuntimeFailed):
    """The disk is too full for the bundle now; nothing is wrong with the bundle."""


class BlobSource(Protocol):
    """The registry that blobs come from; `oci.registry.Registry` is one."""

    def pull_manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest's bytes and media type."""

    def pull_blob(self, repository: str, descriptor: Descriptor, into: Path) -> object:
        """Write a blob to `into`, resumed from `<into>.part`; nothing appears there that has not the
        descriptor's digest.
        """


class Fetcher:
    """Fetches for one device into its blob folder."""

    def __init__(
        self,
        folders: Folders,
        source: BlobSource,
        target: Target,
        trust: Trust,
        *,
        reserve_bytes: int = 0,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        objections: Callable[[PipelineSpec, int], list[str]] = lambda spec, size_bytes: [],
    ) -> None:
        """`reserve_bytes` of the disk are never filled by bundles: they belong to spool and state. `objections` says
        why a pipeline, with files of so many bytes, does not fit this machine.
        """
        self._store = Layout(folders.root)
        self._source = source
        self._target = target
        self._trust = trust
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes
        self._objections = objections

    def fetch(self, name: str, assigned: Assigned) -> Bundle:
        """Bring a bundle here. Raises NotTrusted or BadInput when it must not or cannot run on this device,
        NoRoom when the disk is too full, Unreachable when the registry does not answer; what has come by then
        is kept.
        """
        manifest = self._manifest(name, assigned)
        document = parse_manifest(manifest, assigned.manifest)
        check_manifest(document, name, self._target)
        missing = [blob for blob in _blobs_of(document) if not self._is_here(blob)]
        self._check_room(name, missing)
        self._store.add(BytesBlob.of(manifest, IMAGE_MANIFEST))
        # the spec comes first: by that alone a bundle may be refused
        missing.sort(key=lambda blob: blob.digest != document.config.digest)
        for blob in missing[:1]:
            self._pull(assigned.repository, blob)
        if self._is_here(document.config):
            self._check_fit(name, document)
        for blob in missing[1:]:
            self._pull(assigned.repository, blob)
        return self.staged(name, assigned)

    def _pull(self, repository: str, blob: Descriptor) -> None:
        path = self._store.path(blob.digest)
        with _answering():
            self._source.pull_blob(repository, blob, path)
        path.chmod(0o444)  # bundles link to it: nobody may write to it again

    def _check_fit(self, name: str, document: ManifestDocument) -> None:
        """Refuse by the spec what this machine cannot run."""
        spec = PipelineSpec.decode(self._store.path(document.config.digest).read_bytes())
        if faults := self._objections(spec, sum(layer.size for layer in document.layers)):
            raise BadInput(f"bundle assigned as pipeline '{name}' does not fit this device: {'; '.join(faults)}")

    def staged(self, name: str, assigned: Assigned) -> Bundle:
        """Return a bundle whose blobs are all here. Raises NotTrusted when one is missing or does not fit the
        others.
        """
        bundle = Bundle.from_image(self._store.image(assigned.manifest), assigned.index)
        if bundle.name != name:
            raise NotTrusted(f"bundle {bundle.digest} is pipeline '{bundle.name}', assigned as '{name}': refused")
        return bundle

    def discard_damaged(self, manifest: str) -> None:
        """Delete the blobs of a bundle that no longer have their digest, so that the next fetch brings them
        again.
        """
        path = self._store.path(manifest)
        try:
            data = path.read_bytes()
            named = _blobs_of(parse_manifest(data, manifest)) if Digest.of(data) == manifest else []
        except (OSError, NotTrusted):
            named = []
        for blob in [*named, Descriptor(IMAGE_MANIFEST, manifest, -1)]:
            _discard_unless_right(self._store.path(blob.digest), blob.digest)

    def _manifest(self, name: str, assigned: Assigned) -> bytes:
        path = self._store.path(assigned.manifest)
        if path.is_file() and Digest.of(data := path.read_bytes()) == assigned.manifest:
            return data
        with _answering():
            data, media_type = self._source.pull_manifest(assigned.repository, assigned.manifest)
        if media_type != IMAGE_MANIFEST or len(data) > MANIFEST_LIMIT:
            raise NotTrusted(
                f"what was assigned as pipeline '{name}' is '{media_type[:100]}' of {len(data)} bytes: "
                f"expected {IMAGE_MANIFEST} of at most {MANIFEST_LIMIT}"
            )
        self._trust.check(name, assigned, data)
        return data

    def _is_here(self, blob: Descriptor) -> bool:
        path = self._store.path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def _check_room(self, name: str, missing: list[Descriptor]) -> None:
        arrived = sum(
            _size(self._store.path(blob.digest).with_name(f"{Digest(blob.digest).hex}.part")) for blob in missing
        )
        needed = int((sum(blob.size for blob in missing) - arrived) * HEADROOM) + self._reserve_bytes
        free = self._free_bytes(self._store.folder)
        if missing and needed > free:
            raise NoRoom(
                f"bundle of pipeline '{name}' needs {needed} bytes on '{self._store.folder}' "
                f"(of these {self._reserve_bytes} in reserve), {free} are free: make room, it is tried again"
            )


def check_manifest(document: ManifestDocument, name: str, target: Target) -> None:
    """Refuse by the manifest alone what is not this pipeline for this device. Gathers all faults into one
    NotTrusted.
    """
    said = document.annotations
    faults = []
    if document.artifact_type != media.PIPELINE or document.config.media_type != media.PIPELINE:
        faults.append(f"its artifact type is '{document.artifact_type}', expected {media.PIPELINE}")
    if said.get(media.NAME) != name:
        faults.append(f"it is pipeline '{said.get(media.NAME)}'")
    if not fits(said.get(media.TARGET, ""), target):
        faults.append(f"it is for target '{said.get(media.TARGET)}', this device is {target}")
    if not 0 <= document.config.size <= SPEC_LIMIT:
        faults.append(f"its spec is {document.config.size} bytes, expected at most {SPEC_LIMIT}")
    foreign = sorted({layer.media_type[:100] for layer in document.layers if layer.media_type not in _LAYERS})
    if foreign:
        faults.append(f"it holds blobs of type '{foreign[0]}', which this agent does not know")
    if any(layer.size < 0 for layer in document.layers):
        faults.append("it has a blob of negative size")
    if faults:
        raise NotTrusted(f"bundle assigned as pipeline '{name}' is refused: {'; '.join(faults)}")


def fits(said: str, target: Target) -> bool:
    """Whether a bundle made for one target runs on a device of another. Today: the very same."""
    try:
        return Target.read(said) == target
    except BadInput:
        return False


@contextmanager
def _answering() -> Iterator[None]:
    """A registry that lacks what the hub has assigned, or does not let us in, may be mended: nothing is wrong with the
    bundle.
    """
    try:
        yield
    except BadInput as error:
        raise Unreachable(str(error)) from error


def _blobs_of(document: ManifestDocument) -> list[Descriptor]:
    """Config and layers, each digest once; digests are checked to be such."""
    return list({Digest.parse(blob.digest): blob for blob in (document.config, *document.layers)}.values())


def _discard_unless_right(path: Path, digest: str) -> None:
    if path.is_file():
        with path.open("rb") as file:
            right = Digest.of(chunks(file)) == digest
        if not right:
            path.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
