"""Log lines are events with fields: `bundle activated pipeline=wine-line took_s=0.4`, or one JSON object a line. Only
an entry point sets logging up.

What an event says is chosen where it is logged: no headers, no bodies, no environment, so that no secret is among it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Literal

LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = ("text", "json")


def event(log: logging.Logger, what: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one event; its fields stay values until a line is made of them."""
    log.log(level, what, extra={"fields": fields})


def set_up_logging(form: LogFormat, *, access: bool = False, level: int = logging.INFO) -> None:
    """Let all that is logged go to standard error, one line each: our own events, warnings of others, what ends a
    thread. A line a request only with `access`.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonFormatter() if form == "json" else EventFormatter())
    logging.getLogger().handlers[:] = [lines]
    logging.getLogger("edgepack").setLevel(level)
    logging.getLogger("edgepack.access").setLevel(logging.INFO if access else logging.WARNING)
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_ended


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        trace = (what.exc_type, what.exc_value, what.exc_traceback)
        name = what.thread.name if what.thread else ""
        logging.getLogger("edgepack.agent").error(
            "fault of ours ended a thread", exc_info=trace, extra={"fields": {"thread": name}}
        )


class EventFormatter(logging.Formatter):
    """One line an event: time in UTC, level, event, fields as key=value."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        pairs = [f"{key}={_value(value)}" for key, value in _fields(self, record).items()]
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        return " ".join([at, record.levelname.lower(), " ".join(record.getMessage().split()), *pairs])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC, ms), `level`, `logger`, `event`, and the event's fields."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Make the line. A field named as one of these four gets a `_` behind."""
        at = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"
        said = {"time": at, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        fields = {f"{key}_" if key in said else key: value for key, value in _fields(self, record).items()}
        return json.dumps({**said, **fields}, default=str, ensure_ascii=False)


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, object]:
    """What stands behind the event; of an exception its traceback."""
    fields: dict[str, object] = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["traceback"] = formatter.formatException(record.exc_info)
    return fields


def _value(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
