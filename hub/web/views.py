"""What the page shows, as plain values: the template only lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import orjson

from columns.columns import Columns
from columns.records import encode_records
from fleet.messages import DeviceView, PipelineReport
from hub.api.devices import device_views
from hub.hub import Hub
from hub.logs import newest_rows
from hub.store import pipelines, segments

_NEWEST = 25
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Running:
    """One pipeline on a device: what it should run, and what it says it does."""

    pipeline: str
    assigned: str
    active: str
    state: str
    reason: str


@dataclass(frozen=True)
class DeviceRow:
    """One device."""

    name: str
    id: str
    group: str
    target: str
    seen: str
    fresh: bool
    running: list[Running]


@dataclass(frozen=True)
class LogRow:
    """One inference."""

    time: str
    device: str
    pipeline: str
    request_id: str
    given: str
    answered: str
    anomalies: int


def page_values(hub: Hub) -> dict[str, Any]:
    """Everything the template needs."""
    now = hub.clock()
    devices = [_device(hub, view, now) for view in device_views(hub)]
    with hub.database.read() as db:
        versions = pipelines.every_version(db)
        count, rows, size = segments.totals(db)
    published = [(view, ago(now - view.published_at)) for view in versions]
    newest = [_log_row(row) for row in newest_rows(hub, _NEWEST)]
    return {"devices": devices, "pipelines": published, "rows": newest, "totals": (count, rows, size)}


def _device(hub: Hub, view: DeviceView, now: float) -> DeviceRow:
    age = None if view.last_seen is None else now - view.last_seen
    fresh = age is not None and age <= 3 * hub.config.check_in_s
    seen = "never" if age is None else ago(age)
    return DeviceRow(view.name, view.id, view.group or "", view.target, seen, fresh, _running(view))


def _running(view: DeviceView) -> list[Running]:
    assigned = view.assignment.pipelines if view.assignment else {}
    reported = view.inventory.pipelines if view.inventory else {}
    return [
        _one(name, assigned[name].manifest if name in assigned else "", reported.get(name))
        for name in sorted(assigned.keys() | reported.keys())
    ]


def _one(name: str, wanted: str, report: PipelineReport | None) -> Running:
    if report is None:
        return Running(name, short(wanted), "", "waiting", "the device has not reported yet")
    active = short(report.manifest) if report.state == "active" else ""
    old = report.state == "active" and wanted and report.manifest != wanted
    reason = report.reason or ("an older assignment" if old else "")
    return Running(name, short(wanted), active, "waiting" if old else report.state, reason)


def _log_row(row: Columns) -> LogRow:
    """A row for the page. A device may have logged anything under these names, so nothing is taken for granted."""
    said = orjson.loads(encode_records(row))[0]
    metadata, anomaly = _group(said, "metadata"), _group(said, "anomaly")
    count = anomaly.get("count")
    return LogRow(
        time=_time(said.get("time")),
        device=str(metadata.get("partition", "")),
        pipeline=str(metadata.get("pipeline", "")),
        request_id=str(metadata.get("request_id", "")),
        given=_cut(said.get("in")),
        answered=_cut(said.get("out")),
        anomalies=count if isinstance(count, int) else 0,
    )


def _group(said: dict[str, Any], name: str) -> dict[str, Any]:
    found = said.get(name)
    return found if isinstance(found, dict) else {}


def _time(milliseconds: object) -> str:
    try:
        at = datetime.fromtimestamp(float(str(milliseconds)) / 1000, tz=timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _cut(value: object) -> str:
    text = orjson.dumps(value).decode() if value is not None else ""
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def short(digest: str) -> str:
    """A digest as people compare it."""
    return digest.removeprefix("sha256:")[:12]


def ago(seconds: float) -> str:
    """An age in one unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now" if seconds < 1 else f"{int(seconds)} s ago"
