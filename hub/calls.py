"""One operation of the native API as a function: a `Call` in, an `Answer` out.

Here a request becomes a call: credentials and body are checked as the table in `openapi.py` says, before the
function runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import msgspec
from flask import Request, Response

from fleet.messages import ErrorBody
from hub.access import Caller
from hub.hub import Hub
from hub.openapi import Route
from hub.refusal import Refused
from oci.blob import CHUNK

T = TypeVar("T")

JSON_TYPE = "application/json"
RETRY_AFTER_S = {503: "5", 507: "60"}  # room is made by a person


@dataclass(frozen=True)
class Call:
    """A request whose credentials and body are right."""

    hub: Hub
    request: Request
    path: Mapping[str, str]
    caller: Caller
    body: Any = None

    @property
    def device(self) -> str:
        """The id of the device that asks; the table lets nobody else through."""
        if self.caller.device is None:
            raise Refused(403, "this is for devices: send the device's own token")
        return self.caller.device


@dataclass(frozen=True)
class Answer:
    """A status and a message; `raw` is JSON that is encoded already."""

    status: int
    message: object = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


View = Callable[[Call], Answer]


def perform(hub: Hub, route: Route, view: View, request: Request, path: Mapping[str, str]) -> Response:
    """Check a request as its route says, run the operation, encode its answer."""
    caller = authorize(hub, route, request)
    refuse_unknown_query(route, request)
    body = None if route.body is None else read_message(request, route.body, hub.config.json_limit)
    answer = view(Call(hub, request, path, caller, body))
    data = (
        answer.raw if answer.raw is not None else b"" if answer.message is None else msgspec.json.encode(answer.message)
    )
    response = Response(data, answer.status, answer.headers, mimetype=JSON_TYPE if data else None)
    if not data:
        response.headers.pop("Content-Type", None)
    return response


def authorize(hub: Hub, route: Route, request: Request) -> Caller:
    """Let through whom the route is for. A device is noted as seen."""
    if route.who == "anyone":
        return Caller()
    caller = hub.access.identify(request.headers.get("Authorization"))
    if route.who == "admin" and not caller.is_admin:
        raise Refused(403, f"device '{caller.name}' may not do this: it needs the admin token")
    if route.who == "device" and caller.is_admin:
        raise Refused(403, "this is for devices: send 'Authorization: Bearer <device>.<secret>'")
    if caller.device is not None:
        hub.presence.note(caller.device)
    return caller


def refuse_unknown_query(route: Route, request: Request) -> None:
    """A misspelt filter would otherwise answer with everything."""
    for name in request.args:
        if name not in route.query:
            known = ", ".join(route.query) or "none"
            raise Refused(400, f"query field '{name}' is not known: expected {known}", field=name)


def read_message(request: Request, kind: type[T], limit: int) -> T:
    """Read a JSON body into a message. Raises Refused naming the field that is wrong."""
    if request.mimetype != JSON_TYPE:
        raise Refused(415, f"the body is '{request.mimetype or 'of no type'}': expected {JSON_TYPE}")
    data = read_body(request, limit)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is not a {kind.__name__}: {str(error).replace('`', chr(39))}") from error


def read_body(request: Request, limit: int) -> bytes:
    """Read a body that may be at most so large, whether its length was announced or not."""
    refuse_larger(request, limit)
    data = b"".join(read_chunks(request.stream, limit + 1))
    if len(data) > limit:
        raise Refused(413, f"the body is larger than {limit} bytes, which is the most that is taken", close=True)
    return data


def refuse_larger(request: Request, limit: int) -> None:
    """Refuse a body by its announced length, before any of it is read."""
    if (request.content_length or 0) > limit:
        raise Refused(413, f"the body is {request.content_length} bytes: at most {limit} are taken", close=True)


def read_chunks(stream: IO[bytes], most: int | None = None) -> Iterator[bytes]:
    """The body of a request in pieces, to its end or up to `most` bytes. Raises Refused for one that breaks off."""
    left = most
    while left is None or left > 0:
        try:
            chunk = stream.read(CHUNK if left is None else min(CHUNK, left))
        except (ValueError, ConnectionError, TimeoutError) as error:  # ValueError: chunks that are none
            raise Refused(400, f"the body breaks off: {error or type(error).__name__}", close=True) from error
        if not chunk:
            return
        yield chunk
        left = None if left is None else left - len(chunk)


def error_response(status: int, message: str) -> Response:
    """An error in the shape that all answers of the native API have."""
    body = ErrorBody(status, "Error", " ".join(message.split()), "hub")
    response = Response(msgspec.json.encode(body), status, mimetype=JSON_TYPE)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="edgepack hub"'
    if status in RETRY_AFTER_S:
        response.headers["Retry-After"] = RETRY_AFTER_S[status]
    return response
