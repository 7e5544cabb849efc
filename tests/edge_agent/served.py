"""A real server on a real socket before real pipelines and spools."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from bundle.pipeline import LogPolicy
from edge_agent.doors import TABLE, make_app
from edge_agent.http.hot_path import HotPath
from edge_agent.http.server import Limits, Server
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.serving import Serving
from edge_agent.telemetry.metrics import Metrics
from runtimes.pipeline import LoadedPipeline
from tests.runtimes.models import bundle_folder, linear, step

JSON = "application/json; format=pandas-records"
ARROW = "application/vnd.apache.arrow.file"
VERSION = "6d4d1e4c-3d39-5d6c-8b53-9f2f0a8f6c11"


@contextmanager
def refusing_syncs(spool: Spool) -> Iterator[None]:
    """Have the disk under a log refuse every sync."""
    good = spool._log._disk
    bad = type("Bad", (type(good),), {})()

    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    bad.sync = refuse
    spool._log._disk = bad
    yield
    spool._log._disk = spool._log._sealer._disk = good


def until(true: Callable[[], Any], what: str = "it is so", seconds: float = 60.0) -> None:
    """Wait for a sign; the deadline is for what never comes, not for a machine that is slow."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


class Gated:
    """Holds a pipeline's engine up, as a heavy model would, until `go_on` is set; `begun` says that it is asked."""

    def __init__(self, active: ActivePipeline) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        way: Any = active.short_way
        self._engine, way._engine = way._engine, self

    def infer_tensors(self, tensors: Any) -> Any:
        self.begun.set()
        assert self.go_on.wait(60)
        return self._engine.infer_tensors(tensors)


class Front:
    """How requests reach the doors: by the hot path, or all through Flask."""

    def __init__(self, hot: bool = True, limits: Limits | None = None, **hot_settings: Any) -> None:
        self.hot, self.limits, self.hot_settings = hot, limits, hot_settings

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def server(self, serving: Serving) -> Server:
        """A server before these pipelines, on a port of its own."""
        metrics = Metrics()
        hot = HotPath(TABLE, serving, metrics, **self.hot_settings) if self.hot else None
        return Server(make_app(serving, metrics), "127.0.0.1", 0, hot=hot, limits=self.limits)


class Served:
    """Pipelines behind a port; use as a context manager."""

    def __init__(self, root: Path, front: Front) -> None:
        self.root = root
        self.serving = Serving()
        self.server = front.server(self.serving)
        self.spools: dict[str, Spool] = {}
        self._http = requests.Session()

    def __enter__(self) -> Served:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self.server.stop()
        self.serving.close()
        for spool in self.spools.values():
            spool.close()

    @property
    def url(self) -> str:
        return self.server.url

    def add(
        self,
        name: str = "demo",
        factor: float = 2.0,
        model: bytes | None = None,
        log: dict[str, Any] | None = None,
        **spec: Any,
    ) -> ActivePipeline:
        """Serve a pipeline `y = factor * sum of x`, or one of another model."""
        changes = spec.pop("step", {})
        policy = LogPolicy(**(log or {"durability": "relaxed"}))
        golden = spec.pop("golden", b'[{"in.x": [1, 2, 3]}]')
        models = {"linear.onnx": model or linear(factor=factor)}
        folder = bundle_folder(
            self.root / name, models, [step(sha256="", **changes)], golden, name=name, log=policy, **spec
        )
        if name not in self.spools:
            self.spools[name] = Spool(self.root / "spool" / name, policy, "line-4")
        active = ActivePipeline(
            name, VERSION, f"sha256:{folder.name}", LoadedPipeline.open(folder), self.spools[name], "line-4"
        )
        self.serving.switch(name, active)
        return active

    def post(self, path: str = "/infer", rows: Any = None, **more: Any) -> requests.Response:
        """Ask with rows as pandas-records, or with anything else as `data`."""
        if rows is not None:
            more["data"] = json.dumps(rows)
            more["headers"] = {"Content-Type": JSON, **more.get("headers", {})}
        return self._http.post(self.url + path, timeout=60, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self._http.get(self.url + path, timeout=60, **more)
