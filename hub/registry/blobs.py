"""`BlobStore`: every blob of the registry in one layout folder, and those that are on their way in.

A blob comes as an upload session: a file that grows, and a hash that grows with it. It becomes visible only whole,
with the digest that was promised, and after it is durable.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from durable.files import publish, write_atomically
from edgepack.errors import NotTrusted
from hub.refusal import Refused
from oci.blob import BytesBlob, chunks
from oci.digest import Digest
from oci.layout import Layout

_SESSION = re.compile(r"[0-9a-f]{32}")
_ABANDONED_S = 86_400  # an upload that nobody went on with for a day


@dataclass
class Upload:
    """A blob on its way in: `size` bytes are there, `hasher` has seen them all."""

    session: str
    path: Path
    size: int = 0
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    lock: threading.Lock = field(default_factory=threading.Lock)


class BlobStore:
    """Whole blobs by digest; unfinished ones by session."""

    def __init__(self, layout: Layout, uploads: Path) -> None:
        self.layout = layout
        self._folder = uploads
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, data: Path) -> BlobStore:
        """Open or make the folders, and forget uploads that nobody went on with."""
        layout = Layout.create(data / "registry")
        if not (layout.folder / "index.json").exists():
            write_atomically(layout.folder / "index.json", b'{"schemaVersion":2,"manifests":[]}')
        uploads = data / "uploads"
        uploads.mkdir(exist_ok=True)
        for path in uploads.iterdir():
            if path.stat().st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
        return cls(layout, uploads)

    def find(self, digest: str) -> Path | None:
        """The file of a blob. Raises Refused for what is not a digest."""
        path = self.layout.path(known_digest(digest))
        return path if path.is_file() else None

    def add(self, data: bytes, media_type: str) -> None:
        """Keep a small blob whose digest was computed here."""
        self.layout.add(BytesBlob.of(data, media_type))

    def begin(self) -> Upload:
        """Start an upload."""
        upload = Upload(uuid.uuid4().hex, Path())
        upload.path = self._folder / upload.session
        upload.path.touch(mode=0o600)
        with self._lock:
            self._open[upload.session] = upload
        return upload

    @contextmanager
    def going_on(self, session: str) -> Iterator[Upload]:
        """Hold an upload alone.

        Raises Refused 404 for one that is not there, 409 for one that another request holds.
        """
        upload = self._find_upload(session)
        if not upload.lock.acquire(blocking=False):
            raise Refused(409, f"upload {session} is being written by another request", field="BLOB_UPLOAD_INVALID")
        try:
            if not upload.path.exists():
                raise _unknown(session)
            yield upload
        finally:
            upload.lock.release()

    def append(self, upload: Upload, body: Iterable[bytes], limit: int) -> None:
        """Write more of a blob. What came before a connection broke stays, so that the client can go on."""
        for chunk in body:
            if upload.size + len(chunk) > limit:
                raise Refused(413, f"a blob of more than {limit} bytes is not taken", field="SIZE_INVALID", close=True)
            try:
                with upload.path.open("ab") as file:
                    file.write(chunk)
            except OSError:
                self.cancel(upload)  # how much of the chunk is there is not known
                raise
            upload.hasher.update(chunk)
            upload.size += len(chunk)

    def finish(self, upload: Upload, digest: str) -> None:
        """Make an upload a blob, durable before visible. Raises Refused, and drops it, when its digest is another."""
        promised = known_digest(digest)
        found = f"sha256:{upload.hasher.hexdigest()}"
        if found != promised:
            self.cancel(upload)
            raise Refused(
                400, f"blob {promised} has digest {found} after {upload.size} bytes: refused", field="DIGEST_INVALID"
            )
        path = self.layout.path(promised)
        try:
            if not path.is_file():
                publish(upload.path, path)
        finally:
            self.cancel(upload)  # a disk that could not take its name needs its room

    def cancel(self, upload: Upload) -> None:
        """Drop an upload."""
        upload.path.unlink(missing_ok=True)
        self._forget(upload)

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._open.pop(upload.session, None)

    def _find_upload(self, session: str) -> Upload:
        with self._lock:
            upload = self._open.get(session)
            if upload is None:
                upload = self._open[session] = _reopen(self._folder, session)
        return upload


def known_digest(text: str) -> Digest:
    """Take a digest from a request."""
    try:
        return Digest.parse(text)
    except NotTrusted as error:
        raise Refused(400, str(error), field="DIGEST_INVALID") from error


def _reopen(folder: Path, session: str) -> Upload:
    """Go on with an upload that an earlier run of the hub began: its file is all that is known of it."""
    path = folder / session
    if not _SESSION.fullmatch(session) or not path.is_file():
        raise _unknown(session)
    upload = Upload(session, path, path.stat().st_size)
    with path.open("rb") as file:
        for chunk in chunks(file):
            upload.hasher.update(chunk)
    return upload


def _unknown(session: str) -> Refused:
    return Refused(404, f"upload '{session[:64]}' is not known: begin another", field="BLOB_UPLOAD_UNKNOWN")
