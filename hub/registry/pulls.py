"""Reading: manifests, blobs with ranges, tags, referrers."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response, request, send_file
from sqlalchemy import Row

from hub.hub import Hub
from hub.refusal import Refused
from hub.registry.blobs import known_digest
from hub.store import registry
from oci.descriptor import Descriptor
from oci.image import IMAGE_INDEX, IndexDocument


def get_manifest(hub: Hub, name: str, reference: str) -> Response:
    """GET and HEAD /v2/<name>/manifests/<tag or digest>."""
    row = find_manifest(hub, name, reference)
    path = hub.blobs.find(row.digest)
    if path is None:
        raise Refused(
            404, f"manifest {row.digest} of '{name}' is missing in the hub's folder", field="MANIFEST_UNKNOWN"
        )
    response = Response(path.read_bytes(), 200, mimetype=row.media_type)
    response.headers["Content-Type"] = row.media_type
    response.headers["Docker-Content-Digest"] = row.digest
    response.headers["ETag"] = f'"{row.digest}"'
    return response


def find_manifest(hub: Hub, name: str, reference: str) -> Row[Any]:
    """The manifest of a tag or digest in a repository. Raises Refused with MANIFEST_UNKNOWN."""
    with hub.database.read() as db:
        digest = known_digest(reference) if ":" in reference else registry.find_tag(db, name, reference)
        row = registry.find_manifest(db, name, digest) if digest else None
    if row is None:
        raise Refused(404, f"'{name}' has no manifest '{reference[:100]}'", field="MANIFEST_UNKNOWN")
    return row


def get_blob(hub: Hub, name: str, digest: str) -> Response:
    """GET and HEAD /v2/<name>/blobs/<digest>; a Range is answered with 206, or 416 when it lies outside."""
    path = hub.blobs.find(digest)
    if path is None:
        raise Refused(404, f"'{name}' has no blob {digest}", field="BLOB_UNKNOWN")
    # a blob never changes: its digest is its ETag, and If-Range with it is safe
    response = send_file(path, mimetype="application/octet-stream", conditional=True, etag=digest, max_age=31_536_000)
    response.headers["Docker-Content-Digest"] = digest
    return response


def list_tags(hub: Hub, name: str) -> Response:
    """GET /v2/<name>/tags/list?n=&last=."""
    limit = _count(request.args.get("n"))
    with hub.database.read() as db:
        if not registry.has_repository(db, name):
            raise Refused(404, f"nothing was ever pushed to '{name}'", field="NAME_UNKNOWN")
        tags = registry.every_tag(db, name, request.args.get("last", ""), None if limit is None else limit + 1)
    more = limit is not None and len(tags) > limit
    shown = tags[:limit]
    response = _json({"name": name, "tags": shown}, "application/json")
    if more and shown:
        response.headers["Link"] = f'</v2/{name}/tags/list?n={limit}&last={shown[-1]}>; rel="next"'
    return response


def list_referrers(hub: Hub, name: str, digest: str) -> Response:
    """GET /v2/<name>/referrers/<digest>?artifactType=: an index, empty when nothing refers to it."""
    wanted = request.args.get("artifactType")
    with hub.database.read() as db:
        rows = registry.referrers(db, name, known_digest(digest), wanted)
    manifests = [
        Descriptor(row.media_type, row.digest, row.size, annotations=row.annotations, artifact_type=row.artifact_type)
        for row in rows
    ]
    response = _json(IndexDocument(schema_version=2, media_type=IMAGE_INDEX, manifests=manifests), IMAGE_INDEX)
    if wanted is not None:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    return response


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 6:
        raise Refused(400, f"n is '{text[:20]}': expected a number", field="UNSUPPORTED")
    return int(text)


def _json(content: object, media_type: str) -> Response:
    response = Response(msgspec.json.encode(content), 200)
    response.headers["Content-Type"] = media_type
    return response
