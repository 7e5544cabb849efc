"""What a manifest must be before the registry takes it, and what follows from it: a row, a tag, perhaps a published
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from arch.target import Target
from bundle import media
from bundle.bundle import version_of
from bundle.pipeline import dns_label
from edgepack.errors import BadInput
from fleet.messages import PipelineView
from hub.refusal import Refused
from hub.registry.blobs import BlobStore, known_digest
from hub.store.registry import find_manifest
from oci.digest import Digest
from oci.image import IMAGE_INDEX, IMAGE_MANIFEST, INDEXES, MANIFESTS

_INVALID = "MANIFEST_INVALID"
_LACKS = "MANIFEST_BLOB_UNKNOWN"


class _Named(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str
    annotations: dict[str, str] | None = None


class _Document(msgspec.Struct, rename="camel"):
    """Image manifest and index in one; what we do not ask about may be there too."""

    schema_version: int
    media_type: str | None = None
    artifact_type: str | None = None
    config: _Named | None = None
    layers: list[_Named] | None = None
    manifests: list[_Named] | None = None
    subject: _Named | None = None
    annotations: dict[str, str] | None = None


@dataclass(frozen=True)
class Manifest:
    """A manifest that reads, with its digest."""

    repository: str
    digest: Digest
    media_type: str
    data: bytes
    document: _Document

    @classmethod
    def parse(cls, repository: str, data: bytes, content_type: str) -> Manifest:
        """Read a manifest of a kind that the registry keeps. Raises Refused with MANIFEST_INVALID."""
        if content_type not in MANIFESTS | INDEXES:
            raise Refused(
                415,
                f"manifests of type '{content_type}' are not kept: expected {IMAGE_MANIFEST} or {IMAGE_INDEX}",
                field=_INVALID,
            )
        try:
            document = msgspec.json.decode(data, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(
                400, f"the manifest does not read: {str(error).replace('`', chr(39))}", field=_INVALID
            ) from error
        made = cls(repository, Digest.of(data), content_type, data, document)
        made._check_form()
        return made

    @property
    def is_index(self) -> bool:
        """Whether it names manifests rather than blobs."""
        return self.media_type in INDEXES

    @property
    def artifact_type(self) -> str | None:
        """What the referrers API shows: its own, else its config's media type (distribution-spec, "Listing
        Referrers").
        """
        if self.document.artifact_type is not None or self.document.config is None:
            return self.document.artifact_type
        return self.document.config.media_type

    def row(self) -> dict[str, object]:
        """What the database keeps."""
        return {
            "repository": self.repository,
            "digest": str(self.digest),
            "media_type": self.media_type,
            "size": len(self.data),
            "artifact_type": self.artifact_type,
            "subject": self.document.subject.digest if self.document.subject else None,
            "annotations": self.document.annotations or {},
        }

    def check_references(self, db: Connection, blobs: BlobStore) -> dict[str, Row[Any]]:
        """Return the rows of the manifests that it names. Raises Refused naming the first blob or manifest that is not
        here.
        """
        document, children = self.document, {}
        for child in document.manifests or []:
            row = find_manifest(db, self.repository, child.digest)
            if row is None:
                raise Refused(
                    400, f"manifest {child.digest} is not in '{self.repository}': push it first", field=_LACKS
                )
            children[child.digest] = row
        for blob in [document.config, *(document.layers or [])] if document.config else []:
            path = blobs.find(blob.digest) if blob else None
            if blob and (path is None or path.stat().st_size != blob.size):
                raise Refused(400, f"blob {blob.digest} of {blob.size} bytes is not here: push it first", field=_LACKS)
        return children

    def _check_form(self) -> None:
        document = self.document
        if document.schema_version != 2 or document.media_type not in (None, self.media_type):
            raise Refused(
                400, f"the manifest says '{document.media_type}', it came as '{self.media_type}'", field=_INVALID
            )
        whole = (
            document.manifests is not None
            if self.is_index
            else document.config is not None and document.layers is not None
        )
        if not whole:
            lacks = "'manifests'" if self.is_index else "'config' or 'layers'"
            raise Refused(400, f"the manifest came as '{self.media_type}' and has no {lacks}", field=_INVALID)
        named = [document.config, document.subject, *(document.layers or []), *(document.manifests or [])]
        for descriptor in named:
            if descriptor is not None:
                known_digest(descriptor.digest)


def published_view(manifest: Manifest, children: Mapping[str, Row[Any]], now: int) -> PipelineView | None:
    """The version that a pushed index publishes, or None for what is not a pipeline's index; `children` are the rows
    of the manifests that it names.

    Some tools write an index anew and lose its artifact type and annotations: then it is a pipeline's when every
    manifest in it says so of itself, under the repository's name. Raises Refused when an index says that it is a
    pipeline's and is not: another name than the repository's, a target twice or none.
    """
    if not manifest.is_index:
        return None
    if manifest.document.artifact_type == media.PIPELINE:
        said = [(child.digest, child.annotations or {}) for child in manifest.document.manifests or []]
    elif manifest.document.artifact_type is None and _are_bundles(children, manifest.repository):
        said = [(digest, row.annotations) for digest, row in children.items()]
    else:
        return None
    try:
        dns_label(manifest.repository)
        if manifest.document.artifact_type == media.PIPELINE:
            _check_name(manifest.repository, "the index", manifest.document.annotations)
        manifests = _by_target(manifest.repository, said)
    except BadInput as error:
        raise Refused(400, f"pipeline '{manifest.repository}' is not published: {error}", field=_INVALID) from error
    return PipelineView(manifest.repository, str(manifest.digest), manifests, version_of(manifest.digest), now)


def _are_bundles(children: Mapping[str, Row[Any]], name: str) -> bool:
    return bool(children) and all(
        row.artifact_type == media.PIPELINE and row.annotations.get(media.NAME) == name for row in children.values()
    )


def _by_target(repository: str, said: list[tuple[str, dict[str, str]]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for digest, notes in said:
        _check_name(repository, f"manifest {digest}", notes)
        target = str(Target.read(notes.get(media.TARGET, "")))
        if target in found:
            raise BadInput(f"two manifests are for {target}")
        found[target] = digest
    if not found:
        raise BadInput("its index names no manifest")
    return found


def _check_name(repository: str, what: str, annotations: dict[str, str] | None) -> None:
    named = (annotations or {}).get(media.NAME)
    if named != repository:
        raise BadInput(f"{what} is annotated {media.NAME} = '{named}', expected the repository's name")
