"""`RegistrySession`: one registry, asked over HTTP with bounds: seconds, bytes, and no step aside.

Redirects are not followed, because credentials go with each request. What a registry says is never trusted to be well
formed: HTML in the place of JSON, half an answer and one without end are each one line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, NameResolutionError, NewConnectionError

from edgepack.errors import BadInput, RuntimeFailed, Unreachable
from oci.credentials import Basic, Bearer
from oci.deadline import pools_with_deadline
from oci.reference import is_loopback

LARGEST_ANSWER = 16 << 20  # bytes of JSON
_CONNECT_S, _READ_S, _ANSWER_S, _DOWNLOAD_S = 10.0, 30.0, 60.0, 3600.0
_PIECE = 1 << 20
_MOST_SAID = 200  # characters of a registry's own words
_ERROR_BODY = 64 << 10  # bytes
_BUSY = (408, 425, 429)


class RegistrySession:
    """Connections to one registry.

    `read_s` is how long it may be silent, `answer_s` how long an answer may take, `download_s` a file.
    """

    def __init__(
        self,
        url: str,
        credentials: Basic | Bearer | None = None,
        *,
        read_s: float = _READ_S,
        answer_s: float = _ANSWER_S,
        download_s: float = _DOWNLOAD_S,
    ) -> None:
        self.url = checked_url(url)
        if credentials and self.url.startswith("http:") and not is_loopback(urlsplit(self.url).netloc):
            raise BadInput(
                f"registry '{self.url}' is another machine and has no TLS: credentials are not sent there; use https",
                field="registry",
            )
        self._headers = {"Authorization": credentials.header} if credentials else {}
        self._answer_s, self._download_s = answer_s, download_s
        self._pool = pools_with_deadline(read_s, retries=False)

    def __enter__(self) -> RegistrySession:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def ask(self, path: str, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """The JSON object that a path answers with. Raises BadInput where the registry refuses, Unreachable where it is
        away, busy or too slow, RuntimeFailed for what is no answer of a registry.
        """
        body = bytearray()
        with self._sent(path, query, self._answer_s) as pieces:
            for piece in pieces:
                body += piece
                if len(body) > LARGEST_ANSWER:
                    raise RuntimeFailed(f"registry '{self.url}' answers with more than {LARGEST_ANSWER} bytes: refused")
        try:
            said = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._no_registry(bytes(body[:64])) from error
        if not isinstance(said, dict):
            raise self._no_registry(bytes(body[:64]))
        return said

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, in pieces. Raises as `ask`, also in the middle."""
        with self._sent(path, None, self._download_s) as pieces:
            yield pieces

    @contextmanager
    def _sent(self, path: str, query: Mapping[str, str | int] | None, allowed_s: float) -> Iterator[Iterator[bytes]]:
        end = time.monotonic() + allowed_s
        try:
            response = self._answer(path, query, allowed_s)
        except (HTTPError, OSError) as error:
            raise self._away(error, end) from error
        try:
            if response.status != 200:
                raise self._refusal(response, path)
            yield self._pieces(response, end)
        finally:
            response.close()

    def _answer(self, path: str, query: Mapping[str, str | int] | None, allowed_s: float) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                "GET",
                f"{self.url}{path}",
                fields={name: str(value) for name, value in (query or {}).items()},
                headers=self._headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, total=allowed_s),
                preload_content=False,
                redirect=False,
            )
        except LocationValueError as error:
            raise BadInput(f"registry '{self.url}' is no URL: {error}", field="registry") from error

    def _pieces(self, response: urllib3.BaseHTTPResponse, end: float) -> Iterator[bytes]:
        """What comes, until the time is over; a body that is cut short raises."""
        while True:
            try:
                piece = response.read1(_PIECE)
            except (HTTPError, OSError) as error:
                raise self._away(error, end) from error
            if not piece:
                return
            yield piece

    def _away(self, error: Exception, end: float) -> Unreachable:
        if time.monotonic() >= end:
            return Unreachable(f"registry '{self.url}' is too slow: an answer took longer than it may")
        return Unreachable(f"registry '{self.url}' did not answer ({_reason(error)}): is it running?")

    def _refusal(self, response: urllib3.BaseHTTPResponse, path: str) -> Exception:
        status = response.status
        if 300 <= status < 400:
            to = response.headers.get("Location", "")[:_MOST_SAID]
            return BadInput(f"registry '{self.url}' sends elsewhere, to '{to}': give the URL that answers itself")
        said = self._words(response)
        if status in (401, 403):
            refused = "refuses these credentials" if self._headers else "refuses"
            return BadInput(
                f"registry '{self.url}' {refused} ({status}{said}): give credentials, by MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or `edgepack registries add`"
            )
        if status >= 500 or status in _BUSY:
            return Unreachable(f"registry '{self.url}' cannot answer now ({status}{said}): try again later")
        return BadInput(f"registry '{self.url}' has no such thing ({status}{said}): '{path.partition('?')[0][-200:]}'")

    def _words(self, response: urllib3.BaseHTTPResponse) -> str:
        """What an error's body says for people; nothing where it is a page."""
        try:
            said = json.loads(self._begin(response)).get("message", "")
        except (ValueError, RecursionError, AttributeError):
            return ""
        line = " ".join(str(said).split())[:_MOST_SAID]
        return f": {line}" if line else ""

    def _begin(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """What comes of an error's body in the time of an answer, also where a file was asked for."""
        begin, end = bytearray(), time.monotonic() + self._answer_s
        with suppress(HTTPError, OSError):  # it is an error anyway, with fewer words
            while len(begin) < _ERROR_BODY and time.monotonic() < end and (piece := response.read1(_ERROR_BODY)):
                begin += piece
        return bytes(begin)

    def _no_registry(self, head: bytes) -> RuntimeFailed:
        what = "a web page" if head.lstrip()[:1] == b"<" else "something else than JSON"
        return RuntimeFailed(f"'{self.url}' answers with {what}: is it the URL of an MLflow server?")


def checked_url(text: str) -> str:
    """A registry's URL without a slash at its end. Raises BadInput for what is none, or has a password in it."""
    try:
        parts = urlsplit(text.strip())
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        parts, is_whole = urlsplit(""), False
    if not is_whole or not text.strip().isprintable():
        raise BadInput(
            f"registry '{text[:200]}' is not a URL: expected one like https://mlflow.example", field="registry"
        )
    if parts.username or parts.password:
        raise BadInput(
            "the registry's URL has a password in it: give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            field="registry",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _reason(error: Exception) -> str:
    if isinstance(error, NameResolutionError):
        return "its name is not known"
    if isinstance(error, NewConnectionError):
        return "no connection"
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return "it took too long"
    if isinstance(error, urllib3.exceptions.SSLError):
        return "no TLS, or a certificate that is not trusted"
    return "the connection broke"
