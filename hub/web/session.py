"""Who is signed in at the page: a cookie that says until when, signed with a key made of the admin token."""

from __future__ import annotations

import hashlib
import hmac

LASTS_S = 12 * 3600


def sign_in(admin_token: str, now: float) -> str:
    """A cookie for somebody who showed the admin token."""
    until = str(int(now) + LASTS_S)
    return f"{until}.{_signature(admin_token, until)}"


def is_signed_in(cookie: str, admin_token: str, now: float) -> bool:
    """Whether a cookie is ours and not too old. A new admin token makes all of them worthless."""
    until, _, signature = cookie.partition(".")
    right = hmac.compare_digest(signature.encode(), _signature(admin_token, until).encode())
    return right and until.isdecimal() and int(until) > now


def _signature(admin_token: str, until: str) -> str:
    key = hashlib.sha256(f"edgepack hub page {admin_token}".encode()).digest()
    return hmac.new(key, until.encode(), "sha256").hexdigest()
