"""The Authorization header for one registry: what to send, and how to answer its challenges.

Credentials go to the registry's own origin and to the token server that it names, that one only over https or on the
registry's own host. A fixed bearer token goes to the registry alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlencode, urlsplit

import msgspec

from edgepack.errors import BadInput, NotTrusted
from oci.credentials import Basic, Bearer, Challenge, Credentials, IdentityToken

# url, headers, a form to POST or None to GET -> status, body
Fetch = Callable[[str, Mapping[str, str], bytes | None], tuple[int, bytes]]
_CLIENT = {"client_id": "edgepack"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Authorizer:
    """Knows the credentials and the tokens got with them. Shared by threads: a race asks for a token twice."""

    def __init__(self, origin: str, credentials: Credentials | None) -> None:
        self._origin, self._credentials = origin, credentials
        self._sent: dict[str, str] = {}

    def headers(self, scope: str) -> dict[str, str]:
        """What to send along with a request of this scope (`repository:name:pull`)."""
        if isinstance(self._credentials, Bearer):
            return {"Authorization": self._credentials.header}
        return {"Authorization": self._sent[scope]} if scope in self._sent else {}

    @property
    def sends_token(self) -> bool:
        """Whether a fixed token is sent, not what a login keeps."""
        return isinstance(self._credentials, Bearer)

    def without_secrets(self, text: str) -> str:
        """A text without what was sent to prove who asks: a registry may repeat what it was told."""
        sent = [header.partition(" ")[2] for header in self._sent.values()]
        for secret in [*sent, *_secrets(self._credentials)]:
            text = text.replace(secret, "…") if secret else text
        return text

    def answer(self, challenge: Challenge, scope: str, sent: Mapping[str, str], fetch: Fetch) -> bool:
        """Answer a 401 to a request that went with the headers `sent`. Returns whether something new can be sent."""
        if isinstance(self._credentials, Bearer):
            return False
        if challenge.scheme == "basic" and isinstance(self._credentials, Basic):
            self._sent[scope] = self._credentials.header
            return sent.get("Authorization") != self._sent[scope]
        if challenge.scheme == "bearer" and challenge.realm:
            self._sent[scope] = f"Bearer {self._token(challenge, scope, fetch)}"
            return True
        return False

    def _token(self, challenge: Challenge, scope: str, fetch: Fetch) -> str:
        """Ask the token server (distribution, "Token Authentication Specification")."""
        own = urlsplit(self._origin)
        try:
            realm = urlsplit(challenge.realm)
        except ValueError as error:
            raise NotTrusted(f"registry '{own.netloc}' sends for a token to no URL: refused") from error
        safe = realm.scheme == "https" or (realm.hostname == own.hostname and realm.scheme == own.scheme)
        if not safe or "@" in realm.netloc:
            raise NotTrusted(f"registry '{own.netloc}' sends for a token to '{realm.hostname}' without TLS: refused")
        asked = {"service": challenge.service, "scope": challenge.scope or scope}
        asked = {key: text for key, text in asked.items() if text}
        if isinstance(self._credentials, IdentityToken):  # distribution, "Oauth2 Token Authentication"
            form = {**asked, "grant_type": "refresh_token", "refresh_token": self._credentials.token, **_CLIENT}
            status, body = fetch(challenge.realm, _FORM, urlencode(form).encode())
        else:
            headers = {"Authorization": self._credentials.header} if isinstance(self._credentials, Basic) else {}
            url = f"{challenge.realm}{'&' if realm.query else '?'}{urlencode(asked)}"
            status, body = fetch(url, headers, None)
        token = _read_token(body) if status == 200 else ""
        if not token:
            raise BadInput(f"the token server of registry '{own.netloc}' gives no token: give (other) credentials")
        return token


def _secrets(credentials: Credentials | None) -> list[str]:
    if isinstance(credentials, Basic):
        return [credentials.password, credentials.header.partition(" ")[2]]
    return [] if credentials is None else [credentials.token]


def _read_token(body: bytes) -> str:
    try:
        said = msgspec.json.decode(body, type=_TokenAnswer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    token = said.token or said.access_token
    return token if token.isascii() and token.isprintable() else ""
