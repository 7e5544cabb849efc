"""One blob to a registry (distribution-spec, "Pushing blobs"): asked for first, mounted where another repository
has it, in one piece when small, in chunks that are resumed when large.

The registry says where to send the bytes; a place on another host is refused. Our own digest is checked on the way,
so a file that went bad here is named here and never reaches the registry under a name that it does not deserve.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import BinaryIO
from urllib.parse import urlencode, urljoin, urlsplit

from edgepack.errors import BadInput, NotTrusted, Unreachable
from oci._session import Answer, NoRoom, Session, origin_of
from oci.blob import Blob
from oci.descriptor import Descriptor
from oci.digest import Digest

CHUNK = 8 << 20  # bytes; also the most that goes in one piece
_LARGEST_CHUNK = 64 << 20
_OCTETS = {"Content-Type": "application/octet-stream"}


def upload(session: Session, repository: str, blob: Blob, mount_from: str | None = None) -> None:
    """Bring a blob to the registry, unless it is there.

    Raises NotTrusted if our bytes are not those of the descriptor, Unreachable when the registry stops answering,
    BadInput if it refuses. A registry without room is not asked again.
    """
    for failures in range(1, session.attempts + 1):
        if has_blob(session, repository, blob.descriptor.digest):
            return
        try:
            return _once(session, repository, blob, mount_from)
        except NoRoom:
            raise
        except Unreachable:
            if failures == session.attempts:
                raise
            session.pause(failures)


def has_blob(session: Session, repository: str, digest: str) -> bool:
    """Whether the registry has a blob."""
    path = f"/v2/{repository}/blobs/{Digest.parse(digest)}"
    answer = session.request("HEAD", path, scope=f"repository:{repository}:pull", expected=(200, 404))
    return answer.status == 200


def _once(session: Session, repository: str, blob: Blob, mount_from: str | None) -> None:
    upload = _Upload(session, repository, blob.descriptor)
    if upload.begin(mount_from):
        return
    with blob.open() as file:
        if blob.descriptor.size <= CHUNK:
            upload.send_whole(file)
        else:
            upload.send_chunks(file)


class _Upload:
    """One upload session at the registry, and how far it got."""

    def __init__(self, session: Session, repository: str, descriptor: Descriptor) -> None:
        self._session, self._repository, self._descriptor = session, repository, descriptor
        self._scope = f"repository:{repository}:pull,push"
        self._place, self._chunk = "", CHUNK

    def begin(self, mount_from: str | None) -> bool:
        """Open an upload. Returns True if the registry mounted the blob instead: then nothing is left to do."""
        path = f"/v2/{self._repository}/blobs/uploads/"
        query = {"mount": self._descriptor.digest, "from": mount_from or ""}
        answer = None
        if mount_from:
            try:
                answer = self._request("POST", f"{path}?{urlencode(query)}", (201, 202))
            except BadInput:
                answer = None  # not allowed to read there: an ordinary upload may still be allowed here
        answer = answer or self._request("POST", path, (202,))
        if answer.status == 201:
            return True
        self._follow(answer)
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        if least.isdigit():
            self._chunk = min(max(CHUNK, int(least)), _LARGEST_CHUNK)
        return False

    def send_whole(self, file: BinaryIO) -> None:
        """The whole blob in the request that also closes the upload."""
        data = file.read(CHUNK + 1)
        self._check(len(data), hashlib.sha256(data).hexdigest())
        self._close(data)

    def send_chunks(self, file: BinaryIO) -> None:
        """Chunk by chunk; after a cut the registry is asked how far it got."""
        hasher, hashed, at, failures = hashlib.sha256(), 0, 0, 0
        while at < self._descriptor.size:
            self._session.check_stop()
            file.seek(at)
            data = file.read(min(self._chunk, self._descriptor.size - at))
            if not data:
                break
            hasher.update(data[max(0, hashed - at) :])
            hashed = max(hashed, at + len(data))
            try:
                self._send_chunk(data, at)
                at, failures = at + len(data), 0
            except NoRoom:
                raise
            except Unreachable as error:
                failures += 1
                if failures >= self._session.attempts:
                    raise
                self._session.pause(failures)
                at = self._ask_how_far(hashed, error)
        self._check(hashed + len(file.read(1)), hasher.hexdigest())
        self._close(b"")

    def _send_chunk(self, data: bytes, at: int) -> None:
        headers = {**_OCTETS, "Content-Range": f"{at}-{at + len(data) - 1}"}
        self._follow(self._request("PATCH", self._place, (202,), headers, data))

    def _ask_how_far(self, sent: int, failure: Unreachable) -> int:
        """How many bytes the registry has after a failure. Raises Unreachable if it does not know this upload any
        more.
        """
        answer = self._session.request("GET", self._place, scope=self._scope, expected=(204, 404))
        said = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", ""))
        if answer.status == 404 or said is None or int(said[1]) >= sent:
            raise Unreachable(f"{failure}; it lost the upload with that") from failure
        self._follow(answer)
        # registries say "0-0" both for nothing and for one byte; nothing is the likelier, and the digest decides
        return int(said[1]) + 1 if int(said[1]) else 0

    def _close(self, data: bytes) -> None:
        joint = "&" if urlsplit(self._place).query else "?"
        place = self._place + joint + urlencode({"digest": self._descriptor.digest})
        self._request("PUT", place, (201,), _OCTETS, data)

    def _check(self, size: int, digest_hex: str) -> None:
        said = self._descriptor
        if size != said.size or f"sha256:{digest_hex}" != said.digest:
            raise NotTrusted(f"blob {said.digest} is damaged on this machine: not pushed, build or fetch it again")

    def _request(
        self,
        method: str,
        path: str,
        expected: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        # a request that moves bytes is not repeated blindly: the registry may have taken them before the cut
        again = method == "POST"
        return self._session.request(
            method, path, scope=self._scope, expected=expected, headers=headers, body=body, again=again
        )

    def _follow(self, answer: Answer) -> None:
        """Take the place of the next request from an answer."""
        origin = self._session.origin
        place = self._session.join(urljoin(origin, self._place), answer.headers.get("Location", ""))
        parts = urlsplit(place)
        if origin_of(place) != origin_of(origin):
            host = parts.netloc.rpartition("@")[2]
            raise NotTrusted(f"registry '{self._session.host}' sends an upload to {parts.scheme}://{host}: refused")
        self._place = place
