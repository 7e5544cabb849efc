"""Writing: uploads in one piece or in many, mounts, manifests; and what a pushed manifest publishes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from flask import Response, request
from sqlalchemy import Row

from durable.files import write_atomically
from hub.calls import read_body, read_chunks
from hub.hub import Hub
from hub.refusal import Refused
from hub.registry.answers import accepted
from hub.registry.blobs import Upload, known_digest
from hub.registry.manifests import Manifest, published_view
from hub.store import pipelines, registry
from oci.descriptor import Descriptor
from oci.image import IMAGE_INDEX, IndexDocument
from oci.source import REF_NAME

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_RANGE = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/.*)?")


def begin_upload(hub: Hub, name: str) -> Response:
    """POST /v2/<name>/blobs/uploads/: mount what is here, take a whole blob, or begin a session."""
    mount, whole = request.args.get("mount"), request.args.get("digest")
    if mount is not None and hub.blobs.find(mount) is not None:
        return _created(name, mount)
    upload = hub.blobs.begin()
    if whole is None:
        return _going_on(202, name, upload)
    known_digest(whole)
    with hub.blobs.going_on(upload.session):
        return _finish(hub, name, upload, whole)


def upload_status(hub: Hub, name: str, session: str) -> Response:
    """GET the session: how much is here."""
    with hub.blobs.going_on(session) as upload:
        return _going_on(204, name, upload)


def continue_upload(hub: Hub, name: str, session: str) -> Response:
    """PATCH the session: more of the blob, at the place where it ended."""
    with hub.blobs.going_on(session) as upload:
        _check_place(upload)
        hub.blobs.append(upload, read_chunks(request.stream), hub.config.blob_limit)
        return _going_on(202, name, upload)


def finish_upload(hub: Hub, name: str, session: str) -> Response:
    """PUT the session with ?digest=: the last piece, if any, and the check of the whole."""
    digest = request.args.get("digest")
    if digest is None:
        raise Refused(400, "the upload ends without a digest: add ?digest=sha256:…", field="DIGEST_INVALID")
    known_digest(digest)
    with hub.blobs.going_on(session) as upload:
        _check_place(upload)
        return _finish(hub, name, upload, digest)


def cancel_upload(hub: Hub, name: str, session: str) -> Response:
    """DELETE the session."""
    with hub.blobs.going_on(session) as upload:
        hub.blobs.cancel(upload)
    return accepted(204, {})


def put_manifest(hub: Hub, name: str, reference: str) -> Response:
    """PUT /v2/<name>/manifests/<tag or digest>: kept when all it names is here; a pipeline's index under a tag is
    published.
    """
    manifest = Manifest.parse(name, read_body(request, hub.config.manifest_limit), request.mimetype)
    tag = None if ":" in reference else reference
    if tag is None and known_digest(reference) != manifest.digest:
        raise Refused(400, f"the manifest is {manifest.digest}, not {reference}", field="DIGEST_INVALID")
    if tag is not None and not _TAG.fullmatch(tag):
        raise Refused(400, f"'{tag[:140]}' is not a tag", field="TAG_INVALID")
    _keep(hub, manifest, tag)
    headers = {"Location": f"/v2/{name}/manifests/{manifest.digest}", "Docker-Content-Digest": manifest.digest}
    if manifest.document.subject is not None:
        headers["OCI-Subject"] = manifest.document.subject.digest
    return accepted(201, headers)


def _keep(hub: Hub, manifest: Manifest, tag: str | None) -> None:
    with hub.database.read() as db:
        children = manifest.check_references(db, hub.blobs)
    view = published_view(manifest, children, int(hub.clock())) if tag is not None else None
    hub.blobs.add(manifest.data, manifest.media_type)
    with hub.database.write() as db:
        registry.add_manifest(db, manifest.row())
        if tag is not None:
            registry.set_tag(db, manifest.repository, tag, manifest.digest)
            _write_index(hub, registry.tagged(db))
        if view is not None:
            pipelines.publish(db, view)


def _write_index(hub: Hub, tagged: list[Row[Any]]) -> None:
    """The layout folder's own index.json, so that any OCI tool reads a backup of it. The database is the truth."""
    manifests = [
        Descriptor(row.media_type, row.digest, row.size, {REF_NAME: f"{row.repository}:{row.name}"}) for row in tagged
    ]
    document = IndexDocument(schema_version=2, media_type=IMAGE_INDEX, manifests=manifests)
    write_atomically(hub.blobs.layout.folder / "index.json", msgspec.json.encode(document))


def _check_place(upload: Upload) -> None:
    """Raise Refused 416 when the client says that its piece begins elsewhere than where the upload ends."""
    said = request.headers.get("Content-Range")
    if said is None:
        return
    match = _RANGE.fullmatch(said)
    if match is None:
        raise Refused(
            400, f"Content-Range '{said[:60]}' does not read: expected <first>-<last>", field="BLOB_UPLOAD_INVALID"
        )
    if int(match[1]) != upload.size:
        raise Refused(
            416, f"the piece begins at {match[1]}, the upload ends at {upload.size}", field="BLOB_UPLOAD_INVALID"
        )


def _finish(hub: Hub, name: str, upload: Upload, digest: str) -> Response:
    hub.blobs.append(upload, read_chunks(request.stream), hub.config.blob_limit)
    hub.blobs.finish(upload, digest)
    return _created(name, digest)


def _created(name: str, digest: str) -> Response:
    return accepted(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})


def _going_on(status: int, name: str, upload: Upload) -> Response:
    last = max(upload.size - 1, 0)  # an empty upload says 0-0 too: what every registry does
    return accepted(
        status,
        {
            "Location": f"/v2/{name}/blobs/uploads/{upload.session}",
            "Range": f"0-{last}",
            "Docker-Upload-UUID": upload.session,
        },
    )
