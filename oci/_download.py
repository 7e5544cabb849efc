"""One blob from a registry into a file: resumed after a cut, checked while it streams, visible when it is whole.

The bytes gather in `<name>.part`. What an earlier process left there is hashed and continued with a closed range
(`bytes=N-M`: some registries refuse open ones); an answer that is not the range asked for starts the file again.
More bytes than the descriptor says end the download at once. Wrong bytes delete the part; a cut keeps it.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from durable.files import publish
from edgepack.errors import NotTrusted
from oci._session import SLOWEST_BYTES_S, Session
from oci.blob import FileBlob, chunks
from oci.descriptor import Descriptor
from oci.digest import Digest

_PIECE = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def download(session: Session, repository: str, descriptor: Descriptor, into: Path) -> FileBlob:
    """Fetch a blob into a file. One that is there already with the right bytes is left as it is.

    Raises NotTrusted for wrong bytes (nothing is kept), Unreachable when the registry stops answering (the part is
    kept for the next call), BadInput if it does not have the blob. One call at a time for one file.
    """
    Digest.parse(descriptor.digest)
    if _is_there(into, descriptor):
        return FileBlob(into, descriptor)
    part = _Part(into.with_name(into.name + ".part"), descriptor)
    try:
        inherited = part.size > 0
        _fill(session, repository, part)
        if inherited and not part.is_right:
            # a power cut may have left zeros where the part's last bytes should be: not the registry's fault
            part.restart()
            _fill(session, repository, part)
        if not part.is_right:
            raise part.refuse(f"has the digest {part.digest}")
    finally:
        part.close()
    publish(part.path, into)
    return FileBlob(into, descriptor)


def _is_there(path: Path, descriptor: Descriptor) -> bool:
    if not path.is_file() or path.stat().st_size != descriptor.size:
        return False
    with path.open("rb") as file:
        return Digest.of(chunks(file)) == descriptor.digest


class _Part:
    """The file that the blob gathers in, and the hash of what is in it so far."""

    def __init__(self, path: Path, descriptor: Descriptor) -> None:
        self.path, self.descriptor = path, descriptor
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._hasher, self.size = hashlib.sha256(), 0
        for chunk in chunks(self._file):
            self._hasher.update(chunk)
            self.size += len(chunk)
        if self.size > descriptor.size:
            self.restart()

    @property
    def missing(self) -> int:
        return self.descriptor.size - self.size

    @property
    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"

    @property
    def is_right(self) -> bool:
        return self.missing == 0 and self.digest == self.descriptor.digest

    def append(self, data: bytes) -> None:
        if len(data) > self.missing:
            raise self.refuse(f"is longer than the {self.descriptor.size} bytes it should have")
        self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hasher, self.size = hashlib.sha256(), 0

    def refuse(self, why: str) -> NotTrusted:
        """Delete what came: it must not be continued. Returns the error to raise."""
        self.path.unlink(missing_ok=True)
        return NotTrusted(f"blob {self.descriptor.digest} {why}: refused and deleted")

    def close(self) -> None:
        self._file.close()


def _fill(session: Session, repository: str, part: _Part) -> None:
    """Ask until the part is as long as it should be. Only attempts are counted that bring nothing new, or no more than
    trickles.
    """
    furthest, failures, with_ranges, since = part.size, 0, True, time.monotonic()
    while part.missing:
        cause: object = "it ends too early"
        try:
            with_ranges = _stream(session, repository, part, with_ranges) and with_ranges
        except (HTTPError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                raise  # our disk, not their network
            cause = error
        session.check_stop()
        now = time.monotonic()
        failures = 0 if part.size - furthest > SLOWEST_BYTES_S * (now - since) else failures + 1
        furthest, since = max(furthest, part.size), now
        if part.missing and failures >= session.attempts:
            raise session.unreachable(cause, failures)
        if part.missing:
            session.pause(failures)


def _stream(session: Session, repository: str, part: _Part, with_ranges: bool) -> bool:
    """One GET for what is missing. Returns whether the registry understood the range."""
    start, last = part.size, part.descriptor.size - 1
    ranged = start > 0 and with_ranges
    if start and not with_ranges:
        part.restart()
    with session.stream(
        f"/v2/{repository}/blobs/{part.descriptor.digest}",
        scope=f"repository:{repository}:pull",
        expected=(200, 206, 416) if ranged else (200,),
        headers={"Range": f"bytes={start}-{last}"} if ranged else {},
    ) as response:
        if response.status == 416 or (response.status == 206 and not _fits(response, start, last)):
            part.restart()
            return False
        if response.status == 200:
            part.restart()
            _check_length(response, part)
        while data := response.read1(_PIECE, decode_content=False):
            part.append(data)
            session.check_stop()
    return True


def _fits(response: urllib3.BaseHTTPResponse, start: int, last: int) -> bool:
    said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return said is not None and int(said[1]) == start and int(said[2]) <= last and said[3] in ("*", str(last + 1))


def _check_length(response: urllib3.BaseHTTPResponse, part: _Part) -> None:
    """Refuse before the first byte what says itself that it has another size."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != part.descriptor.size:
        raise part.refuse(f"is {int(length)} bytes at the registry, its descriptor says {part.descriptor.size}")
