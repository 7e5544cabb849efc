"""Who is asking: the admin, a device, or nobody we know. The only place that looks at credentials."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from fleet import credentials
from hub.refusal import Refused
from hub.store import Database
from hub.store.devices import find_device

ADMIN_PREFIX = "epa_"


@dataclass(frozen=True)
class Caller:
    """Someone whose credentials are right: a device, or the admin when `device` is None."""

    device: str | None = None
    name: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether this is the operator's token."""
        return self.device is None


class Access:
    """Knows the admin's token by its hash, and devices by the hashes in the database."""

    def __init__(self, database: Database, admin_token: str) -> None:
        self._database = database
        self._admin_sha256 = credentials.hash_secret(admin_token)

    def identify(self, authorization: str | None) -> Caller:
        """Take an `Authorization` header, Bearer or Basic with the token as password. Raises Refused 401."""
        token = _token(authorization)
        if credentials.matches(token, self._admin_sha256):
            return Caller()
        pair = credentials.split_bearer(token)
        if pair is None:
            raise Refused(401, "the token is not the admin token of this hub: run `edgepack login`, or give --token")
        return self._device(*pair)

    def is_admin_token(self, token: str) -> bool:
        """Whether this text is the admin's token."""
        return credentials.matches(token, self._admin_sha256)

    def _device(self, device: str, secret: str) -> Caller:
        with self._database.read() as db:
            row = find_device(db, device)
        if row is None or not credentials.matches(secret, row.secret_sha256):
            raise Refused(
                401, "the device is not enrolled at this hub, or its secret is another: enrol it with a new token"
            )
        if row.revoked_at is not None:
            raise Refused(401, f"device '{row.name}' was revoked: enrol it again with a new token")
        return Caller(row.id, row.name)


def _token(authorization: str | None) -> str:
    scheme, _, rest = (authorization or "").partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return rest
    if scheme.lower() == "basic" and rest:
        return _password(rest)
    raise Refused(401, "credentials are missing: send 'Authorization: Bearer <token>'")


def _password(encoded: str) -> str:
    try:
        _, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError as error:  # not ASCII, not base64, not UTF-8
        raise Refused(401, "the Basic credentials do not read: expected base64 of name:token") from error
    return password
