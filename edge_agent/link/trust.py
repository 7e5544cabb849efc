"""The seam where signatures will be checked: `Trust` says whether a manifest may be installed at all."""

from __future__ import annotations

from typing import Protocol

from edgepack.errors import NotTrusted
from fleet.messages import Assigned
from oci.digest import Digest


class Trust(Protocol):
    """Asked once a fetch, before the first blob."""

    def check(self, name: str, assigned: Assigned, manifest: bytes) -> None:
        """Raise NotTrusted unless these bytes are what may run here under that name."""


class DigestsOnly:
    """Trusts the hub's word: the manifest must have the digest that was assigned, nothing more."""

    def check(self, name: str, assigned: Assigned, manifest: bytes) -> None:
        """See Trust."""
        if (found := Digest.of(manifest)) != assigned.manifest:
            raise NotTrusted(
                f"the manifest of pipeline '{name}' has digest {found}, assigned was {assigned.manifest}: refused"
            )
