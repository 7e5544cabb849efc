"""GET /metrics: what Prometheus reads. Sums only, no names, so it needs no token."""

from __future__ import annotations

import threading
from collections import Counter

from flask import Response, request

from hub.hub import Hub
from hub.store import devices, pipelines, segments

_HELP = {
    "edgepack_hub_devices": ("gauge", "enrolled devices"),
    "edgepack_hub_devices_seen": ("gauge", "enrolled devices heard of in the last three check-in intervals"),
    "edgepack_hub_pipeline_versions": ("gauge", "published versions"),
    "edgepack_hub_segments_total": ("counter", "segments that came home"),
    "edgepack_hub_rows_total": ("counter", "rows that came home"),
    "edgepack_hub_segment_bytes_total": ("counter", "bytes of segments that came home"),
}


class Metrics:
    """Counts answers as they go out; asks the database for the rest."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._answers: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def count(self, response: Response) -> Response:
        """Note one answer."""
        with self._lock:
            self._answers[(request.method, response.status_code)] += 1
        return response

    def answer(self) -> Response:
        """The text format of Prometheus."""
        lines = [line for name, value in self._values().items() for line in _lines(name, value)]
        lines += ["# HELP edgepack_hub_requests_total answered requests", "# TYPE edgepack_hub_requests_total counter"]
        with self._lock:
            answers = sorted(self._answers.items())
        lines += [
            f'edgepack_hub_requests_total{{method="{how}",status="{status}"}} {n}' for (how, status), n in answers
        ]
        return Response("\n".join(lines) + "\n", mimetype="text/plain; version=0.0.4")

    def _values(self) -> dict[str, int]:
        hub = self._hub
        with hub.database.read() as db:
            rows = devices.every_device(db)
            versions = len(pipelines.every_version(db))
            count, log_rows, size = segments.totals(db)
        newest = [hub.presence.last_seen(row.id, row.last_seen) or 0.0 for row in rows]
        recently = hub.clock() - 3 * hub.config.check_in_s
        return dict(
            zip(_HELP, (len(rows), sum(at >= recently for at in newest), versions, count, log_rows, size), strict=True)
        )


def _lines(name: str, value: int) -> list[str]:
    kind, what = _HELP[name]
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}", f"{name} {value}"]
