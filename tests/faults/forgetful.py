"""The agent with a planted bug: its disk says that it synced a file, and did not. Only tests start it."""

from __future__ import annotations

from durable.disk import DISK, Disk
from edgepack import launch


class Forgetful(Disk):
    """The real disk, but for one promise."""

    def sync(self, handle: int) -> None:
        pass


def agent() -> None:
    """`edgepack-agent` on such a disk."""
    DISK.__class__ = Forgetful  # the one object that every room was handed as its disk
    launch.agent()
