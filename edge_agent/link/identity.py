"""The device's secret: made here, kept here (0600), and known to the hub only by its hash.

A secret is written durably before it is sent anywhere, under its hash's first digits. So an enrolment whose
answer was lost is asked for again with the same secret, and an old identity stays whole until the new one is
in force.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from durable.files import write_atomically
from edgepack.errors import BadInput
from fleet.credentials import hash_secret, make_secret

_NAME = "secret-"
_CA = ".ca.pem"


class Identity:
    """The folder `identity/`; it must exist (`Folders.make`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pending(self, in_force: str | None) -> tuple[str, bool]:
        """Return a secret that no enrolment has taken yet, and whether it is new: the one of an earlier try, or a new
        one, on disk before this returns.
        """
        for path in sorted(self._folder.glob(f"{_NAME}*")):
            secret = _read(path)
            if path.name == _file_name(hash_secret(secret)) and hash_secret(secret) != in_force:
                return secret, False
        secret = make_secret()
        write_atomically(self._folder / _file_name(hash_secret(secret)), f"{secret}\n".encode(), mode=0o600)
        return secret, True

    def secret(self, secret_sha256: str) -> str:
        """Return the secret with this hash. Raises BadInput when the folder does not hold it."""
        path = self._folder / _file_name(secret_sha256)
        secret = _read(path) if path.is_file() else ""
        if hash_secret(secret) != secret_sha256:
            raise BadInput(
                f"the secret of this device is not in '{self._folder}': enrol again with --force and a new token"
            )
        return secret

    def keep_ca(self, secret_sha256: str, ca: Path) -> None:
        """Keep a copy of the CA that vouches for this identity's hub. Raises BadInput when the file holds none."""
        try:
            data = ca.read_bytes()
            ssl.create_default_context(cadata=data.decode("ascii"))
        except (OSError, ValueError, ssl.SSLError) as error:
            raise BadInput(f"CA file '{ca}' does not read as PEM certificates: {error}", field="ca") from error
        write_atomically(self._ca_path(secret_sha256), data)

    def ca(self, secret_sha256: str) -> Path | None:
        """Return the CA file that was kept for this identity."""
        path = self._ca_path(secret_sha256)
        return path if path.is_file() else None

    def forget(self, secret_sha256: str) -> None:
        """Delete a secret that no hub has taken, and its CA."""
        for path in (self._folder / _file_name(secret_sha256), self._ca_path(secret_sha256)):
            path.unlink(missing_ok=True)

    def forget_all_but(self, in_force: str) -> None:
        """Delete what belongs to other identities."""
        for path in self._folder.glob(f"{_NAME}*"):
            if path.name.removesuffix(_CA) != _file_name(in_force):
                path.unlink(missing_ok=True)

    def _ca_path(self, secret_sha256: str) -> Path:
        return self._folder / f"{_file_name(secret_sha256)}{_CA}"


def _file_name(secret_sha256: str) -> str:
    return f"{_NAME}{secret_sha256[:16]}"


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()
