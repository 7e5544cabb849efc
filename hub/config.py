"""What a hub is told at its start: one frozen value, read once, passed down."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import BadInput
from fleet.wire import SEGMENT_LIMIT


@dataclass(frozen=True)
class HubConfig:
    """Where a hub keeps its data, where it listens and what it takes."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8090  # 0: any free one
    tls_cert: Path | None = None
    tls_key: Path | None = None
    check_in_s: float = 5.0  # how often a device asks for its assignment
    threads: int = 16  # requests answered at the same time
    json_limit: int = 1 << 20  # bytes of one JSON body
    manifest_limit: int = 4 << 20  # bytes of one manifest (distribution-spec, "Pushing Manifests": at least 4 MiB)
    blob_limit: int = 16 << 30  # bytes of one blob
    segment_limit: int = SEGMENT_LIMIT  # bytes of one segment
    token_expires_limit_s: int = 30 * 86_400  # no join token lives longer

    def check(self) -> HubConfig:
        """Return it if it may be served, else raise BadInput: off loopback a hub speaks TLS only."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadInput("TLS needs both files: give --tls-cert and --tls-key")
        if self.tls_cert is None and not is_loopback(self.host):
            raise BadInput(
                f"host '{self.host}' is not loopback and there is no TLS: "
                "give --tls-cert and --tls-key, or --host 127.0.0.1"
            )
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise BadInput(f"TLS file '{file}' does not exist: give a PEM file")
        return self


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine can reach a listener there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
