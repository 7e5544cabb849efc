"""How a device joins: a token is made, used once, and used up in the same transaction that makes the device."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, Row

from arch.target import Target
from bundle.pipeline import dns_label
from edgepack.errors import BadInput
from fleet import credentials
from fleet.messages import EnrolRequest, Token, TokenRequest
from hub.refusal import Refused
from hub.store import devices

_AGAIN = "ask for another with `edgepack devices token`"


def make_token(db: Connection, request: TokenRequest, now: float, longest_s: int) -> Token:
    """Make a join token; only its hash stays here."""
    if not 1 <= request.expires_s <= longest_s:
        raise BadInput(
            f"field 'expires_s' is {request.expires_s}: expected 1 to {longest_s} seconds", field="expires_s"
        )
    if request.group is not None:
        _name("group", request.group)
    token_id, secret = secrets.token_hex(6), credentials.make_secret()
    expires_at = int(now) + request.expires_s
    devices.add_token(db, token_id, credentials.hash_secret(secret), request.group, int(now), expires_at)
    return Token(token_id, f"join-{token_id}-{secret}", expires_at, request.group)


def enrol(db: Connection, request: EnrolRequest, now: float) -> Row[Any]:
    """Make a device with a token, or find the one that the same request made before; call it inside one `write()`.

    Raises Refused: 403 for a token that is unknown, expired or used by another, 409 for a name that is taken.
    """
    credentials.check_hash(request.secret_sha256)
    _name("name", request.name)
    target = _target(request.target)
    token = _find(db, request.token)
    if token.used_by is not None:
        return _same_again(db, token, request)
    if token.expires_at <= now:
        raise Refused(403, f"the join token has expired: {_AGAIN}", field="token")
    device = {
        "id": f"dev_{secrets.token_hex(8)}",  # the underscore keeps ids and names (DNS labels) apart
        "name": request.name,
        "target": target,
        "group_name": token.group_name,
        "secret_sha256": request.secret_sha256,
        "enrolled_at": int(now),
    }
    devices.add_device(db, device)
    devices.use_token(db, token.id, str(device["id"]))
    return devices.living(db, str(device["id"]))


def _find(db: Connection, text: str) -> Row[Any]:
    parts = text.split("-")
    token = devices.find_token(db, parts[1]) if len(parts) == 3 and parts[0] == "join" else None
    if token is None or not credentials.matches(parts[2], token.secret_sha256):
        raise Refused(403, f"the join token is not one of this hub: {_AGAIN}", field="token")
    return token


def _same_again(db: Connection, token: Row[Any], request: EnrolRequest) -> Row[Any]:
    """A device whose answer was lost asks with the same secret; anybody else holds a token that is spent."""
    device = devices.find_living(db, token.used_by)
    same = device is not None and (device.secret_sha256, device.name) == (request.secret_sha256, request.name)
    if device is None or not same:
        raise Refused(403, f"the join token was used already: {_AGAIN}", field="token")
    return device


def _name(field: str, text: str) -> None:
    try:
        dns_label(text)
    except BadInput as error:
        raise BadInput(f"field '{field}': {error}", field=field) from error


def _target(text: str) -> str:
    try:
        return str(Target.read(text))
    except BadInput as error:
        raise BadInput(f"field 'target': {error}", field="target") from error
