"""Requests to one registry: what is tried again, and where a redirect may lead.

- 5xx, 429 and broken connections are tried again with a doubling wait, then are Unreachable; all else is an answer.
- A redirect is followed for GET and HEAD only: never from https to http, never from elsewhere to this machine, and to
  another origin without credentials.
- No message repeats a header or a query, for they may hold secrets; of an answer's body it repeats what the registry
  says about an error, without our credentials.
- 507 is for a person to mend, by making room: it is not tried again.
- An answer ends in time, however slowly its bytes drip; a blob takes as long as it comes at a bearable rate.
"""

from __future__ import annotations

import contextlib
import copy
import random
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError

from edgepack.errors import BadInput, NotTrusted, Unreachable
from oci import _error_body
from oci._authorizer import Authorizer
from oci.credentials import Challenge, Credentials
from oci.deadline import pools_with_deadline
from oci.reference import is_loopback

CONNECT_S, READ_S, ANSWER_S = 10.0, 60.0, 120.0
SLOWEST_BYTES_S = 1000.0  # of a blob, over the time of an answer: a slower one is cut
SMALL_ANSWER = 4 << 20  # bytes of an answer that is read whole
_LONGEST_WAIT_S = 15.0
_DRAINED = 1 << 16  # bytes left unread that cost less than a new connection
_MOST_REDIRECTS = 5
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_NO_ROOM = 507  # RFC 4918, 11.5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HUB = 'realm="edgepack hub"'
_Sent = TypeVar("_Sent")


class NoRoom(Unreachable):
    """The registry's disk is full: the same request fails until somebody makes room."""


@dataclass(frozen=True)
class Answer:
    """An answer that was read whole. Header names are looked up without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Session:
    """Connections to one registry, shared by threads.

    `sleep` is the wait between attempts (tests hand in none), `read_s` how many seconds the registry may be silent,
    `answer_s` how long an answer may be waited for: all of it, or of a blob for bytes that come too slowly.
    """

    def __init__(
        self,
        host: str,
        credentials: Credentials | None = None,
        *,
        plain_http: bool = False,
        ca_file: Path | None = None,
        attempts: int = 5,
        sleep: Callable[[float], object] | None = None,
        read_s: float = READ_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        plain = plain_http or (is_loopback(host) and ca_file is None)
        self.host, self.origin = host, f"{'http' if plain else 'https'}://{host}"
        self._own = origin_of(self.origin)
        self.attempts = attempts
        self._authorizer = Authorizer(self.origin, credentials)
        self._sleep = sleep
        self._stop = threading.Event()
        self._opened: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        settings: dict[str, Any] = {
            "maxsize": 4,
            "retries": False,
            "timeout": urllib3.Timeout(connect=CONNECT_S, read=answer_s),
            "ca_certs": str(ca_file) if ca_file else None,
        }
        self._pool = _remembered(pools_with_deadline(read_s, **settings), self._opened)
        self._blobs = _remembered(pools_with_deadline(read_s, SLOWEST_BYTES_S, **settings), self._opened)

    def until(self, stop: threading.Event) -> Session:
        """The same connections and tokens, for work that ends when `stop` is set."""
        bound = copy.copy(self)
        bound._stop = stop
        return bound

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()
        self._blobs.clear()

    def abort(self) -> None:
        """Break all connections, so that a thread that waits for a silent registry goes on, to its error."""
        for connection in list(self._opened):
            with contextlib.suppress(OSError, AttributeError):  # closed already, or not connected yet
                connection.sock.shutdown(socket.SHUT_RDWR)

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        again: bool = True,
    ) -> Answer:
        """Send one request and read the answer whole, at most 4 MiB of it.

        Raises Unreachable when attempts (one, unless `again`) are used up, BadInput for a status not in `expected`.
        """

        def send() -> Answer:
            with self._send(self._pool, method, path, scope, headers or {}, body) as response:
                return Answer(response.status, response.headers, self._whole(response))

        answer = self._trying(send, again)
        if answer.status not in expected:
            raise self._refused(answer, method, path)
        return answer

    @contextlib.contextmanager
    def stream(
        self, path: str, *, scope: str, expected: Collection[int], headers: Mapping[str, str] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """GET, the body left to the caller, who reads it raw; one that trickles is cut. Attempts cover only the way to
        the status line.
        """

        def send() -> contextlib.ExitStack:
            with contextlib.ExitStack() as stack:
                responses.append(stack.enter_context(self._send(self._blobs, "GET", path, scope, headers or {}, None)))
                return stack.pop_all()

        responses: list[urllib3.BaseHTTPResponse] = []
        with self._trying(send, True):
            response = responses[-1]
            if response.status not in expected:
                raise self._refused(Answer(response.status, response.headers, self._whole(response)), "GET", path)
            yield response

    def pause(self, failures: int, retry_after_s: float = 0.0) -> None:
        """Wait before the next attempt: half a second, then doubled; jitter keeps a fleet from returning at once."""
        wait = min(_LONGEST_WAIT_S, 0.25 * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        (self._sleep or self._stop.wait)(max(retry_after_s, wait))

    def check_stop(self) -> None:
        """Raise Unreachable if the work that this belongs to was stopped."""
        if self._stop.is_set():
            raise Unreachable(f"stopped while talking to registry '{self.host}'")

    def unreachable(self, cause: object, tries: int | None = None, retry_after_s: float | None = None) -> Unreachable:
        """The error for a registry that does not answer, or not well; `tries` where they were counted."""
        counted = f" (tried {tries} times)" if tries and tries > 1 else ""
        if isinstance(cause, _TryAgainError):
            later = f"; try again in {retry_after_s:.0f} s" if retry_after_s else ""
            return Unreachable(f"registry '{self.host}' {cause}{counted}{later}", retry_after_s=retry_after_s)
        reason = _reason(cause) if isinstance(cause, HTTPError | OSError) else str(cause)
        return Unreachable(f"registry '{self.host}' did not answer: {reason}{counted}", retry_after_s=retry_after_s)

    def join(self, url: str, location: str) -> str:
        """Where an answer to `url` sends us. Raises NotTrusted if that is no URL."""
        try:
            target = urljoin(url, location)
            origin_of(target)
        except ValueError as error:
            raise NotTrusted(f"registry '{self.host}' names a place that is no URL: refused") from error
        return target

    def _trying(self, send: Callable[[], _Sent], again: bool) -> _Sent:
        failures = 0
        while True:
            self.check_stop()
            failures += 1
            last, wait = failures >= self.attempts or not again, 0.0
            try:
                return send()
            except SSLError as error:
                raise NotTrusted(
                    f"TLS with registry '{self.host}' failed, its certificate is not of a known CA or it speaks "
                    "plain http: give its CA, or --plain-http"
                ) from error
            except _TryAgainError as error:
                wait = error.retry_after_s
                if last or wait > _LONGEST_WAIT_S:
                    raise self.unreachable(error, failures, wait or None) from error
            except (HTTPError, OSError) as error:
                if last:
                    raise self.unreachable(error, failures) from error
            self.pause(failures, wait)

    @contextlib.contextmanager
    def _send(
        self,
        pool: urllib3.PoolManager,
        method: str,
        path: str,
        scope: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """One attempt: authorize where asked, follow redirects, leave the body unread."""
        url, challenged = urljoin(self.origin, path), 0
        for _ in range(_MOST_REDIRECTS + 2):
            own = origin_of(url) == self._own
            sent = {**headers, **(self._authorizer.headers(scope) if own else {})}
            with self._once(pool, method, url, sent, body) as response:
                if response.status == 401 and own and challenged < 2:
                    challenged += 1
                    if self._challenged(response, scope, sent):
                        continue
                if response.status not in _REDIRECTS:
                    yield response
                    return
                url = self._redirected(method, url, response.headers.get("Location", ""))
        raise NotTrusted(f"registry '{self.host}' redirects without end: refused")

    @contextlib.contextmanager
    def _once(
        self, pool: urllib3.PoolManager, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        response = pool.request(
            method,
            url,
            body=body,
            headers={"Accept-Encoding": "identity", "User-Agent": "edgepack", **headers},
            preload_content=False,
            redirect=False,
        )
        try:
            if response.status in _AGAIN or response.status == _NO_ROOM:
                raise self._failed(response, url)
            yield response
        except BaseException:
            response.close()
            raise
        if response.length_remaining is not None and response.length_remaining <= _DRAINED:
            response.drain_conn()  # read to its end, the connection serves the next request
            response.release_conn()
        else:
            response.close()

    def _challenged(self, response: urllib3.BaseHTTPResponse, scope: str, sent: Mapping[str, str]) -> bool:
        def fetch(url: str, headers: Mapping[str, str], form: bytes | None) -> tuple[int, bytes]:
            with self._once(self._pool, "POST" if form else "GET", url, headers, form) as answer:
                return answer.status, self._whole(answer)

        challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
        return self._authorizer.answer(challenge, scope, sent, fetch)

    def _redirected(self, method: str, url: str, location: str) -> str:
        """Where a redirect leads, if it may be followed. Only the host is named: a query may be a signature."""
        target = self.join(url, location)
        to = urlsplit(target)
        host = to.netloc.rpartition("@")[2]
        if not location or method not in ("GET", "HEAD"):
            raise NotTrusted(f"registry '{self.host}' redirects a {method} to '{host}': refused")
        downgraded = url.startswith("https:") and to.scheme != "https"
        inwards = is_loopback(host) and not is_loopback(self.host)
        if to.scheme not in ("http", "https") or downgraded or inwards or host != to.netloc:
            raise NotTrusted(f"registry '{self.host}' redirects to {to.scheme}://{host}: refused")
        return target

    def _failed(self, response: urllib3.BaseHTTPResponse, url: str) -> Exception:
        """The error for an answer of a registry that cannot do it now. Only its own paths are named."""
        said = self._told(response.read(_error_body.LIMIT, decode_content=False))
        what = f" for '{_what(url)}'" if origin_of(url) == self._own and "/v2/" in url else ""
        if response.status == _NO_ROOM:
            return NoRoom(f"registry '{self.host}' answers {response.status}{said}")
        return _TryAgainError(f"answers {response.status}{what}{said}", _asked_wait(response.headers))

    def _told(self, body: bytes) -> str:
        return self._authorizer.without_secrets(_error_body.told(body[: _error_body.LIMIT]))

    def _whole(self, response: urllib3.BaseHTTPResponse) -> bytes:
        body = bytearray()
        while data := response.read(1 << 16, decode_content=False):
            body += data
            if len(body) > SMALL_ANSWER:
                raise NotTrusted(f"registry '{self.host}' answers with more than {SMALL_ANSWER} bytes: refused")
        return bytes(body)

    def _refused(self, answer: Answer, method: str, path: str) -> BadInput:
        what, said = _what(path), self._told(answer.body)
        if answer.status in (401, 403):
            hint = self._login_hint(_HUB in answer.headers.get("WWW-Authenticate", ""))
            return BadInput(
                f"registry '{self.host}' refuses to {method} '{what}'{said}; give (other) credentials{hint}"
            )
        if answer.status == 404:
            return BadInput(f"registry '{self.host}' has no '{what}'{said}")
        return BadInput(f"registry '{self.host}' answered {answer.status} to {method} '{what}'{said}")

    def _login_hint(self, is_hub: bool) -> str:
        """How a person logs in; nothing where a token was sent that comes from elsewhere."""
        if self._authorizer.sends_token:
            return ""
        return f": `edgepack login --hub {self.origin} --token T`" if is_hub else f": `docker login {self.host}`"


def _remembered(made: urllib3.PoolManager, opened: weakref.WeakSet[HTTPConnection]) -> urllib3.PoolManager:
    """The same pools, whose connections are noted in `opened`."""
    kinds = made.pool_classes_by_scheme
    made.pool_classes_by_scheme = {name: _remembering(pool, opened) for name, pool in kinds.items()}
    return made


def _remembering(
    pool: type[urllib3.HTTPConnectionPool], opened: weakref.WeakSet[HTTPConnection]
) -> type[urllib3.HTTPConnectionPool]:
    """A kind of pool whose connections are noted in `opened`."""

    class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]
        def connect(self) -> None:
            super().connect()
            opened.add(self)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


class _TryAgainError(Exception):
    """An answer after which the same request may succeed later."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def _asked_wait(headers: Mapping[str, str]) -> float:
    """The seconds of a Retry-After (RFC 9110, 10.2.3); a date in it counts from the answer's own, for our clock may be
    wrong.
    """
    said = headers.get("Retry-After", "")
    if said.isdigit():
        return float(said) if len(said) < 7 else 0.0
    try:
        return max(0.0, (parsedate_to_datetime(said) - parsedate_to_datetime(headers["Date"])).total_seconds())
    except (KeyError, ValueError, TypeError):  # none, no date, or one without a zone
        return 0.0


def _reason(error: HTTPError | OSError) -> str:
    """What went wrong, in our words: the library's own text repeats the URL, whose query may be a signature."""
    if isinstance(error, NameResolutionError):
        return "its name is not known"
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError) and not isinstance(error, NewConnectionError):
        return "it took too long"
    return "no connection" if isinstance(error, NewConnectionError) else "the connection broke"


def _what(url: str) -> str:
    """The repository and the thing in it that a request is about."""
    return urlsplit(url).path.removeprefix("/v2/")


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: equal before credentials are sent (RFC 6454). Raises ValueError for no URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
