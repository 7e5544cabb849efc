"""Where things lie in the agent's data folder (docs/agent-http.md). Nothing else names a path in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from durable.files import make_folder
from edgepack.errors import BadInput


@dataclass(frozen=True)
class Folders:
    """The data folder of one agent; one process owns it at a time."""

    root: Path

    @property
    def identity(self) -> Path:
        """The device's secret, readable by the agent's user only."""
        return self.root / "identity"

    @property
    def blobs(self) -> Path:
        """Blobs by digest: `<hex>` when whole, `<hex>.part` while they arrive."""
        return self.root / "blobs" / "sha256"

    @property
    def bundles(self) -> Path:
        """Unpacked bundles, `<hex of the manifest's digest>/`."""
        return self.root / "bundles"

    @property
    def environments(self) -> Path:
        """What python steps import, unpacked; made again from the bundles' wheels where it is missing."""
        return self.root / "environments"

    @property
    def compiled(self) -> Path:
        """What execution providers compile of models, `<hex of the manifest's digest>/`; made again where it is
        missing.
        """
        return self.root / "compiled"

    @property
    def spools(self) -> Path:
        """One spool a pipeline."""
        return self.root / "spool"

    @property
    def state(self) -> Path:
        """The truth about what is active."""
        return self.root / "state.sqlite"

    def bundle(self, manifest: str) -> Path:
        """The folder of one bundle, whether it is there or not."""
        return self.bundles / manifest.removeprefix("sha256:")

    def make(self) -> Folders:
        """Make what is missing. Raises BadInput when the data folder cannot be written."""
        return self._make(self.identity, self.blobs, self.bundles, self.spools)

    def make_identity(self) -> Folders:
        """Make only what joining a hub needs. Raises BadInput when the data folder cannot be written."""
        return self._make(self.identity)

    def _make(self, *folders: Path) -> Folders:
        try:
            for folder in folders:
                make_folder(folder)
            self.identity.chmod(0o700)
        except OSError as error:
            raise BadInput(
                f"data folder '{self.root}' cannot be written: {error.strerror}; choose another with --data",
                field="data",
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise BadInput(f"data folder '{self.root}' is not writable: choose another with --data", field="data")
        return self
