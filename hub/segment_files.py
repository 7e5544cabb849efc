"""Segments as files, byte for byte as the devices sent them; the database says which of them count."""

from __future__ import annotations

from pathlib import Path

from durable.files import make_folder, write_atomically
from oci.digest import Digest


class SegmentFiles:
    """A folder of segments. A file is named by its digest too, so an upload never replaces another's bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)

    def write(self, device: str, epoch: str, number: int, digest: str, data: bytes) -> None:
        """Write one segment; durable when this returns."""
        path = self.path(device, epoch, number, digest)
        make_folder(path.parent)
        write_atomically(path, data)

    def read(self, device: str, epoch: str, number: int, digest: str) -> bytes:
        """The bytes of a segment."""
        return self.path(device, epoch, number, digest).read_bytes()

    def drop(self, device: str, epoch: str, number: int, digest: str) -> None:
        """Remove a segment that came to nothing."""
        self.path(device, epoch, number, digest).unlink(missing_ok=True)

    def path(self, device: str, epoch: str, number: int, digest: str) -> Path:
        """Where a segment lies. Device and epoch have been checked; neither holds a slash."""
        return self._folder / device / epoch / f"{number}-{Digest.parse(digest).hex}"
