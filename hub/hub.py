"""`Hub`: the data folder and what lives in it, opened by one process at a time.

hub.sqlite   what the hub knows                 segments/<device>/<epoch>/<number>-<digest>   the log, as it came
registry/    an OCI layout: all blobs           incoming/, uploads/                           what is on its way in
admin-token  the operator's token (0600)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from durable.files import write_atomically
from durable.folder_lock import FolderLock
from edgepack.errors import BadInput
from hub.access import ADMIN_PREFIX, Access
from hub.config import HubConfig
from hub.presence import Presence
from hub.registry.blobs import BlobStore
from hub.segment_files import SegmentFiles
from hub.store import Database


class Hub:
    """Everything a request needs: where things are kept, who may ask, and what time it is."""

    def __init__(self, config: HubConfig, stack: ExitStack, clock: Callable[[], float]) -> None:
        self.config = config
        self.clock = clock
        self.database = Database.open(config.data / "hub.sqlite")
        stack.callback(self.database.close)
        self.presence = Presence(self.database, clock)
        stack.callback(self.presence.close)
        self.blobs = BlobStore.open(config.data)
        self.segments = SegmentFiles(config.data / "segments", config.data / "incoming")
        # last: a token that is new belongs to a start that succeeds, and is printed by it
        self.admin_token, self.is_new = _admin_token(self.token_file)
        self.access = Access(self.database, self.admin_token)
        self._closing = stack

    @classmethod
    def open(cls, config: HubConfig, clock: Callable[[], float] = time.time) -> Hub:
        """Take the data folder, or make it. Raises BadInput when another process has it or it cannot be written."""
        with ExitStack() as stack:
            _make_private(config.data)
            stack.enter_context(FolderLock(config.data))
            try:
                hub = cls(config, stack, clock)
            except OSError as error:
                raise BadInput(f"data folder '{config.data}' cannot be used: {error.strerror}; give --data") from error
            hub._closing = stack.pop_all()
            return hub

    def close(self) -> None:
        """Write what is left and let the folder go."""
        self._closing.close()

    @property
    def token_file(self) -> Path:
        """Where commands on this machine find the admin token."""
        return self.config.data / "admin-token"


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"data folder '{folder}' cannot be made: {error.strerror}; give --data") from error


def _admin_token(path: Path) -> tuple[str, bool]:
    """Read the admin token, or make one; says whether it is new."""
    if path.exists():
        return path.read_text().strip(), False
    token = ADMIN_PREFIX + secrets.token_hex(24)
    write_atomically(path, (token + "\n").encode(), mode=0o600)
    return token, True
