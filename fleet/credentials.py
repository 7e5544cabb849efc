"""Who speaks: the bearer of a device is `<device>.<secret>`; the hub keeps only the secret's hash. Pure rules."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from edgepack.errors import BadInput

_HASH = re.compile(r"[0-9a-f]{64}")


def make_secret() -> str:
    """A fresh secret for a device or a token: 256 bits as hexadecimal digits."""
    return secrets.token_hex(32)


def hash_secret(secret: str) -> str:
    """What the hub keeps of a secret: SHA-256 of its text. Enough without salt, because secrets are random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, secret_sha256: str) -> bool:
    """Whether a secret is the one that was hashed, compared in constant time."""
    return hmac.compare_digest(hash_secret(secret), secret_sha256)


def device_bearer(device: str, secret: str) -> str:
    """What a device sends: `Authorization: Bearer <device>.<secret>`, and as the password of the registry."""
    return f"{device}.{secret}"


def split_bearer(bearer: str) -> tuple[str, str] | None:
    """Take a device's bearer apart; None for one of another form, such as the admin's, which has no dot."""
    device, dot, secret = bearer.partition(".")
    return (device, secret) if dot and device and secret else None


def check_hash(text: str) -> str:
    """Return the hash of a secret if it looks like one, else raise BadInput for field `secret_sha256`."""
    if not _HASH.fullmatch(text):
        raise BadInput("field 'secret_sha256' is not a SHA-256: expected 64 hexadecimal digits", field="secret_sha256")
    return text
