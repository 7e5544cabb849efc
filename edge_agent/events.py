"""Log lines are events with fields: `bundle activated pipeline=wine-line took_s=0.4`. Only an entry point
sets logging up.
"""

from __future__ import annotations

import json
import logging


def event(log: logging.Logger, what: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one event; its fields stay values until a line is made of them."""
    log.log(level, what, extra={"fields": fields})


class EventFormatter(logging.Formatter):
    """One line an event: time in UTC, level, event, fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        fields: dict[str, object] = getattr(record, "fields", {})
        pairs = [f"{key}={_value(value)}" for key, value in fields.items()]
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        return " ".join([time, record.levelname.lower(), " ".join(record.getMessage().split()), *pairs])


def _value(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
