"""W3C Trace Context (https://www.w3.org/TR/trace-context/): who asked, taken from headers, given back, and logged.

A request with a valid `traceparent` keeps its trace and gets a span of its own. `tracestate` is passed on unread. What
is no valid `traceparent` counts as none, as the recommendation (section 3.2.2) wants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import getrandbits

import numpy as np

from columns.columns import Columns, constant
from columns.schema import Field, Schema
from columns.types import Scalar
from columns.values import object_array

COLUMN = "metadata.traceparent"

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e\t]{1,512}")
_SAMPLED = 1
_MOST_SCHEMAS = 64


@dataclass(frozen=True)
class TraceContext:
    """One request's place in a trace. `parent_id` is empty where the trace begins here."""

    trace_id: str  # 32 hexadecimal digits
    span_id: str  # 16, of this request
    parent_id: str = ""  # 16, of who asked
    flags: int = 0
    state: str = ""  # `tracestate` as it came

    @property
    def is_sampled(self) -> bool:
        """Whether who asked records this trace."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """What an answer, the log and whoever is asked next are told."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Of the answer."""
        own = (("traceparent", self.traceparent),)
        return (*own, ("tracestate", self.state)) if self.state else own


def read_trace(headers: Mapping[str, str]) -> TraceContext | None:
    """The trace that a request belongs to, by its headers (names in lower case), or None."""
    match = _PARENT.fullmatch(headers.get("traceparent", ""))
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, parent_id = match[2], match[3]
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    state = headers.get("tracestate", "")
    kept = state if _STATE.fullmatch(state) else ""
    return TraceContext(trace_id, new_id(64), parent_id, int(match[4], 16) & _SAMPLED, kept)


def begin_trace(*, sampled: bool) -> TraceContext:
    """A trace that begins here."""
    return TraceContext(new_id(128), new_id(64), flags=_SAMPLED if sampled else 0)


def new_id(bits: int) -> str:
    """A random id in hexadecimal digits, not all of them zero."""
    return f"{getrandbits(bits) or 1:0{bits // 4}x}"


class TraceColumn:
    """Adds the trace to rows that are logged. Schemas are kept by identity: who encodes them does the same."""

    def __init__(self) -> None:
        self._schemas: dict[int, tuple[Schema, Schema]] = {}

    def added(self, rows: Columns, trace: TraceContext) -> Columns:
        """The rows with `metadata.traceparent`."""
        found = self._schemas.get(id(rows.schema))
        if found is None:
            if len(self._schemas) >= _MOST_SCHEMAS:
                self._schemas = {}
            whole = Schema((*rows.schema.fields, Field(COLUMN, Scalar("string"))))
            found = self._schemas[id(rows.schema)] = (rows.schema, whole)
        column: np.ndarray = constant(object_array([trace.traceparent]), rows.rows)
        return Columns(found[1], {**rows.arrays, COLUMN: column}, rows.rows)
