"""`HubClient`: what the agent asks of the hub, and the class that asks it over HTTP.

One request is one try: repeating is the loop's job (`edge_agent/loop.py`). Answers are read up to a limit,
redirects are not followed, and a credential never goes over plain http to another machine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, SSLError

from edgepack.errors import BadInput, EdgepackError, NotTrusted, Unreachable
from fleet.messages import Assignment, Enrolment, EnrolRequest, ErrorBody, Inventory, Message, Receipt
from fleet.wire import SEGMENT_DIGEST, SEGMENT_PIPELINE, SEGMENT_TYPE, segment_path
from oci.deadline import pools_with_deadline

ANSWER_LIMIT = 4 << 20  # bytes of one answer; an assignment of a thousand pipelines is a tenth of it
CONNECT_S = 10.0
READ_S = 60.0  # between two reads of one answer
ANSWER_S = 120.0  # for all of it
_RETRY_LATER = (408, 425, 429)

M = TypeVar("M", bound=Message)


class Refused(EdgepackError):
    """The hub answered 4xx: it will not take this request, however often it is sent. `status` is the HTTP
    status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """One sealed segment on its way home."""

    pipeline: str
    epoch: str
    number: int
    data: bytes
    digest: str


class HubClient(Protocol):
    """The hub as an enrolled device sees it. All raise Unreachable (try later), Refused (do not), NotTrusted
    (it lies).
    """

    def assignment(self, etag: str | None) -> tuple[Assignment, str | None] | None:
        """Ask what to run. Returns the assignment and its entity tag; None when it is still the one of
        `etag`.
        """

    def report(self, inventory: Inventory) -> None:
        """Tell the hub what became of the assignment."""

    def put_segment(self, upload: Upload) -> Receipt:
        """Bring a segment home. The receipt is checked: it names this segment and digest."""


class HttpHub:
    """The hub over HTTP. Usable from several threads."""

    def __init__(
        self,
        url: str,
        *,
        device: str = "",
        bearer: str = "",
        ca_file: Path | None = None,
        read_s: float = READ_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """`ca_file` is the CA of a hub whose certificate this machine does not trust by itself. The hub may be silent
        for `read_s` seconds, and take `answer_s` over an answer.
        """
        self.url = checked_url(url)
        self._device = device
        self._headers = {"User-Agent": "edgepack-agent", "Accept": "application/json"}
        if bearer:
            self._headers["Authorization"] = f"Bearer {bearer}"
        timeout = urllib3.Timeout(connect=min(CONNECT_S, read_s), read=answer_s)
        ca_certs = str(ca_file) if ca_file else None
        self._pool = pools_with_deadline(read_s, maxsize=4, retries=False, timeout=timeout, ca_certs=ca_certs)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def enrol(self, request: EnrolRequest) -> Enrolment:
        """Join the fleet with a token. Needs no bearer."""
        return self._decode(self._send("POST", "/api/v1/enrol", body=msgspec.json.encode(request))[1], Enrolment)

    def assignment(self, etag: str | None) -> tuple[Assignment, str | None] | None:
        """See HubClient."""
        headers = {"If-None-Match": etag} if etag else {}
        status, body, answered = self._send("GET", "/api/v1/assignment", headers=headers)
        return None if status == 304 else (self._decode(body, Assignment), answered.get("ETag"))

    def report(self, inventory: Inventory) -> None:
        """See HubClient."""
        self._send("PUT", "/api/v1/inventory", body=msgspec.json.encode(inventory))

    def put_segment(self, upload: Upload) -> Receipt:
        """See HubClient."""
        headers = {
            "Content-Type": SEGMENT_TYPE,
            SEGMENT_DIGEST: upload.digest,
            SEGMENT_PIPELINE: upload.pipeline,
        }
        path = segment_path(self._device, upload.epoch, upload.number)
        receipt = self._decode(self._send("PUT", path, body=upload.data, headers=headers)[1], Receipt)
        expected = (self._device, upload.epoch, upload.number, upload.digest)
        if (receipt.device, receipt.epoch, receipt.segment, receipt.digest) != expected:
            raise NotTrusted(
                f"the hub's receipt is for segment {receipt.segment} of {receipt.epoch[:16]} "
                f"with {receipt.digest[:19]}…, "
                f"sent was {upload.number} of {upload.epoch} with {upload.digest[:19]}…: keeping the segment"
            )
        return receipt

    def _send(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        sent = {
            **self._headers,
            **({"Content-Type": "application/json"} if body is not None else {}),
            **(headers or {}),
        }
        try:
            answer = self._pool.request(
                method, self.url + path, body=body, headers=sent, redirect=False, preload_content=False
            )
            data = answer.read(ANSWER_LIMIT + 1, decode_content=True)
            # a connection whose answer was not read to its end must not be used again
            answer.release_conn() if len(data) <= ANSWER_LIMIT else answer.close()
        except SSLError as error:
            if _is_plain_http(error):
                raise NotTrusted(
                    f"hub '{self.url}' speaks plain http there: start it with --tls-cert and --tls-key, or give its "
                    "http:// URL where it runs on this very machine"
                ) from error
            raise NotTrusted(
                f"the certificate of hub '{self.url}' was refused: {_reason(error)}; give its CA with --ca"
            ) from error
        except (HTTPError, OSError) as error:
            raise Unreachable(f"hub '{self.url}' did not answer: {_reason(error)}") from error
        self._judge(answer.status, data, answer.headers)
        return answer.status, data, answer.headers

    def _judge(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        """Raise for everything but an answer that was asked for."""
        if len(data) > ANSWER_LIMIT:
            raise NotTrusted(f"hub '{self.url}' answered with more than {ANSWER_LIMIT} bytes")
        if status in (200, 201, 204, 304):
            return
        said = _error_of(data)
        if 400 <= status < 500 and status not in _RETRY_LATER:
            raise Refused(status, f"hub '{self.url}' refused ({status}): {said}")
        raise Unreachable(
            f"hub '{self.url}' answered {status}: {said}", retry_after_s=_seconds(headers.get("Retry-After"))
        )

    def _decode(self, body: bytes, kind: type[M]) -> M:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise NotTrusted(f"hub '{self.url}' sent no {kind.__name__.lower()} that reads: {error}") from error


def checked_url(text: str) -> str:
    """Return a hub's URL without a slash at its end. Raises BadInput unless it is https, or http to this very
    machine.
    """
    parts = urlsplit(text.strip())
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadInput(f"hub '{text}' is not a URL: {error}", field="hub") from error
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise BadInput(f"hub '{text}' is not a URL: expected https://host[:port]", field="hub")
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    if parts.scheme == "http" and not is_loopback(host):
        raise BadInput(f"hub '{text}' is another machine and has no TLS: use https://{place}", field="hub")
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether a host name means this very machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_plain_http(error: SSLError) -> bool:
    """Whether a TLS greeting was answered by something that is no TLS (OpenSSL 3.2 has other words for it)."""
    said = str(error).lower().replace("_", " ")
    return "wrong version number" in said or "record layer failure" in said


def _reason(error: Exception) -> str:
    """The innermost words of a urllib3 error, without object addresses."""
    cause = getattr(error, "reason", None) or next((each for each in error.args if isinstance(each, Exception)), error)
    # "<urllib3.connection.HTTPConnection object at 0x…>: Failed to …", "HTTPConnection(host='…', port=…): Read …"
    return re.sub(r"^(<[^>]*>|\w+\([^)]*\)): ", "", str(cause)).strip() or type(cause).__name__


def _error_of(data: bytes) -> str:
    """What an error answer says, in one bounded line, whoever sent it."""
    try:
        said = msgspec.json.decode(data, type=ErrorBody).error
    except msgspec.MsgspecError:
        said = data[:200].decode(errors="replace")
    return " ".join(said.split())[:500] or "no reason given"


def _seconds(text: str | None) -> float | None:
    # a date is not read: this machine's clock may be wrong
    return float(text) if text and re.fullmatch(r"\d{1,6}", text.strip()) else None
