"""Segments as files, byte for byte as the devices sent them; the database says which of them count.

A body goes to a file while it is hashed, so that a slow sender holds no memory; what is kept is renamed, durable first.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from durable.files import make_folder, publish
from hub.refusal import Refused
from oci.digest import Digest


@dataclass(frozen=True)
class Received:
    """A body that came in whole. The file is gone when the block that received it ends, unless it was kept."""

    path: Path
    digest: str
    size: int


class SegmentFiles:
    """A folder of segments. A file is named by its digest too, so an upload never replaces another's bytes."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._folder = folder
        self._incoming = incoming
        for each in (folder, incoming):
            make_folder(each)
        for left in incoming.iterdir():  # what a crash left: its sender has no receipt and sends it again
            left.unlink()

    @contextmanager
    def receive(self, body: Iterable[bytes], limit: int) -> Iterator[Received]:
        """Take a body of at most `limit` bytes. Raises Refused 413 for more."""
        path = self._incoming / uuid.uuid4().hex
        try:
            yield _write(path, body, limit)
        finally:
            path.unlink(missing_ok=True)

    def keep(self, received: Received, device: str, epoch: str, number: int) -> None:
        """Give a body its name; durable when this returns."""
        path = self.path(device, epoch, number, received.digest)
        make_folder(path.parent)
        publish(received.path, path)

    def read(self, device: str, epoch: str, number: int, digest: str) -> bytes:
        """The bytes of a segment."""
        return self.path(device, epoch, number, digest).read_bytes()

    def drop(self, device: str, epoch: str, number: int, digest: str) -> None:
        """Remove a segment that came to nothing."""
        self.path(device, epoch, number, digest).unlink(missing_ok=True)

    def path(self, device: str, epoch: str, number: int, digest: str) -> Path:
        """Where a segment lies. Device and epoch have been checked; neither holds a slash."""
        return self._folder / device / epoch / f"{number}-{Digest.parse(digest).hex}"


def _write(path: Path, body: Iterable[bytes], limit: int) -> Received:
    hasher, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in body:
            size += len(chunk)
            if size > limit:
                raise Refused(
                    413, f"the segment is larger than {limit} bytes, which is the most that is taken", close=True
                )
            hasher.update(chunk)
            file.write(chunk)
    return Received(path, f"sha256:{hasher.hexdigest()}", size)
