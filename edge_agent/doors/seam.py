"""The seam between HTTP and the doors: a door is a function from a `Call` to an `Answer`, a `Route` leads to it.

No framework's object crosses it. The serving thread calls the doors directly, Flask calls the same ones; request ids,
limits, metrics and error bodies are therefore the same on both ways.

Rules for a door:
- it raises what is wrong as one of `edgepack.errors`; `respond` makes its protocol's error body of it
- it waits for nothing: what it logs goes to `call.logged`, and whoever called the door lets the answer leave only when
  all of that is kept
- a path's placeholder `{pipeline}` holds the pipeline's name: by it the serving thread knows how long a request takes
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from random import getrandbits
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl

import orjson

from edge_agent.pipelines.active_pipeline import Kept
from edge_agent.pipelines.inference import JSON, WrongMediaType
from edge_agent.pipelines.serving import Late, NotAllowed, NotServed, Serving
from edge_agent.pipelines.stages import Stages
from edge_agent.telemetry.events import event
from edge_agent.telemetry.trace_context import TraceContext
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable
from runtimes.protocol import ModelAbsent

if TYPE_CHECKING:
    from edge_agent.http.track import Trail

log = logging.getLogger("edgepack.agent")

Buffer = bytes | bytearray | memoryview

_BROUGHT = 4  # models that one request has brought back at most
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ID_START = str(uuid.UUID(int=getrandbits(128), version=4)).encode()[:24]
_IDS = itertools.count(getrandbits(47))  # 12 digits hold 48 bits


class BodyTooLarge(BadInput):
    """The body is larger than this server takes."""


class Query:
    """The parameters behind the `?`, in the way of Flask's `request.args`."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str | None:
        """The first value of a name."""
        found = self._values.get(name)
        return found[0] if found else None

    def getlist(self, name: str) -> list[str]:
        """All values of a name, in order."""
        return self._values.get(name, [])


@lru_cache(maxsize=256)
def query_of(text: str) -> Query:
    """The parsed query; clients repeat theirs."""
    return Query(text)


@dataclass(slots=True)
class Call:
    """One request as a door sees it, and what the door notes about it on the way. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | bytearray
    request_id: str
    started_ns: int = field(default_factory=time.perf_counter_ns)
    deadline: float = math.inf  # of time.monotonic(): nothing is run or logged for this call afterwards
    is_busy: bool = False  # others wait behind this one: what nobody waits for (shadow models) is left out
    pipeline: str = ""  # for the figures; empty where none was found
    rows: int = 0
    logged: list[Kept] = field(default_factory=list)
    wants_trail: bool = False  # requests like this one come again and again: say how they could be answered sooner
    trail: Trail | None = None
    trace: TraceContext | None = None
    stages: Stages | None = None  # where rows were answered
    answered_ns: int = 0  # when the answer was made
    most_bytes: int = 64 << 20  # of a body, unpacked

    @property
    def args(self) -> Query:
        """The parsed query."""
        return query_of(self.query)

    def header(self, name: str, default: str = "") -> str:
        """A header by its name in lower case."""
        return self.headers.get(name, default)

    def check_deadline(self) -> None:
        """Raise Unreachable (503) where the time for this call is over: its client has been told so already."""
        if self.deadline != math.inf and time.monotonic() > self.deadline:
            raise Late("the request took longer than it may: ask again, or send fewer rows", retry_after_s=1)


@dataclass(slots=True)
class Answer:
    """What goes back: a body (in pieces, where they need not be copied together), its media type, status, headers."""

    body: Buffer | Sequence[Buffer]
    media_type: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    def join(self) -> bytes:
        """The body in one piece."""
        return bytes(self.body) if isinstance(self.body, (bytes, bytearray, memoryview)) else b"".join(self.body)


Door = Callable[..., Answer]  # (serving, call, **placeholders of the path) -> Answer
ErrorBody = Callable[[int, str], bytes]


def error_body(code: int, message: str) -> bytes:
    """The JSON of every error answer of the agent, doors with shapes of their own apart."""
    return orjson.dumps({"code": code, "status": "Error", "error": message, "source": "agent"})


@dataclass(frozen=True)
class Route:
    """One line of the table: `POST /pipelines/{pipeline}` leads to a door.

    `runs` says where: `by_pace` in the serving thread if the pipeline is fast and the body small, else in a thread of
    its own; `inline` always in the serving thread: it must take some microseconds only; `in_thread` never.
    """

    method: str
    pattern: str
    door: Door
    error_body: ErrorBody = error_body
    runs: Literal["by_pace", "inline", "in_thread"] = "by_pace"
    counted: bool = True  # in the figures, as an inference request

    @cached_property
    def protocol(self) -> str:
        """The door's name in figures and logs: that of its module."""
        return self.door.__module__.rpartition(".")[2]


class Table:
    """All routes, found by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {(each.method, each.pattern): each for each in self.routes if "{" not in each.pattern}
        self._patterns = [(each, _regex(each.pattern)) for each in self.routes if "{" in each.pattern]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a decoded path and its placeholders' values, or None."""
        exact = self._exact.get((method, path)) or self._exact.get((method, path.rstrip("/")))
        if exact is not None:
            return exact, {}
        for route, regex in self._patterns:
            if route.method == method and (match := regex.fullmatch(path)):
                return route, match.groupdict()
        return None


def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    named = [f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)]
    return re.compile("".join(named) + "/?")


# Errors

_STATUS: tuple[tuple[type[EdgepackError], int], ...] = (
    (NotServed, 404),
    (NotAllowed, 403),
    (WrongMediaType, 415),
    (BodyTooLarge, 413),
    (BadInput, 400),
    (Unreachable, 503),  # not loaded yet, too busy, or the log takes no rows
    (RuntimeFailed, 422),  # the model answered its golden rows here: that it cannot run these lies in the rows
)


def status_of(error: EdgepackError) -> int:
    """The HTTP status that tells a client what to do about an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def refusal(error: Exception, body: ErrorBody = error_body, request_id: str = "") -> Answer:
    """The answer to a request that ended with an error, whichever it is. What is our fault is logged, by request."""
    if isinstance(error, EdgepackError):
        status = status_of(error)
        if status == 500:
            event(log, "request failed", level=logging.ERROR, request_id=request_id, error=error)
        after = ((("Retry-After", str(math.ceil(error.retry_after_s or 1))),)) if isinstance(error, Unreachable) else ()
        return Answer(body(status, str(error)), JSON, status, after)
    if isinstance(error, MemoryError):
        words = "not enough memory for this request: send fewer rows at once"
        return Answer(body(503, words), JSON, 503, (("Retry-After", "5"),))
    log.error("fault of ours", exc_info=error, extra={"fields": {"request_id": request_id}})
    return Answer(body(500, f"fault of ours: {type(error).__name__}; the agent's log says more"), JSON, 500)


def respond(route: Route, serving: Serving, call: Call, params: Mapping[str, str]) -> Answer:
    """Call a route's door. Never raises: what goes wrong is an answer too."""
    try:
        answer = route.door(serving, call, **params)
    except ModelAbsent as absent:
        return _respond_with(absent, route, serving, call, params)
    except Exception as error:  # noqa: BLE001 - the last one who can answer the client
        return refusal(error, route.error_body, call.request_id)
    call.answered_ns = time.perf_counter_ns()
    return answer


def _respond_with(absent: ModelAbsent, route: Route, serving: Serving, call: Call, params: Mapping[str, str]) -> Answer:
    """Call a door again once the model is there that a predictor lacked; it may lack another then."""
    try:
        for _ in range(_BROUGHT):
            serving.bring_back(call.pipeline, absent, call.deadline)
            try:
                answer = route.door(serving, call, **params)
            except ModelAbsent as other:
                absent = other
            else:
                call.answered_ns = time.perf_counter_ns()
                return answer
    except Exception as error:  # noqa: BLE001 - as above
        return refusal(error, route.error_body, call.request_id)
    return refusal(absent, route.error_body, call.request_id)


def settle(route: Route, call: Call, answer: Answer) -> Answer:
    """Wait until all that a call logged is kept; the answer that may leave then."""
    try:
        for kept in call.logged:
            kept.wait()
    except Exception as error:  # noqa: BLE001 - as above
        return refusal(error, route.error_body, call.request_id)
    return answer


def request_id_of(given: str | None) -> str:
    """The client's request id where it can be one, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else next_request_id().decode()


def next_request_id() -> bytes:
    """A new id in the form of a random UUID: a process draws its first, and counts on. It names, and guards nothing."""
    return b"%b%012x" % (_ID_START, next(_IDS))
