"""Containers of the images under test, started and ended by way of the package `docker`."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from buildx.engine import Engine as Client
from examples.demo.programs import free_port
from tests.images.engine import Engine

_START_S = 600  # an emulated start takes 10 to 20 times as long as a native one, on a busy machine many more
_STOP_S = 120  # after SIGTERM docker waits so long before it kills
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Node:
    """An engine of ours and a client of it."""

    engine: Engine
    client: Client

    @contextlib.contextmanager
    def serving(self, image: str, platform: str, start_s: float = _START_S) -> Iterator[str]:
        """Run an image as `serving_all` does; gives the agent's address."""
        with self.serving_all([image], platform, start_s) as (url,):
            yield url

    @contextlib.contextmanager
    def serving_all(self, images: Sequence[str], platform: str, start_s: float = _START_S) -> Iterator[list[str]]:
        """Run images beside each other as their printed lines do: read-only, without capabilities. Gives the agents'
        addresses.

        When the test is through, each must have found itself healthy, and must end by itself when it is told to. The
        images are removed then: all of them together would take gigabytes.
        """
        started: dict[str, Any] = {}
        try:
            for image in images:
                port = free_port()
                started[f"http://127.0.0.1:{port}"] = self._start(image, platform, port)
            for url, container in started.items():
                _wait_ready(url, container, start_s)
            yield list(started)
            for container in started.values():
                _wait_healthy(container)
                container.stop(timeout=_STOP_S)
                assert container.wait()["StatusCode"] == 0, f"it did not end by SIGTERM: {container.logs().decode()}"
        finally:
            for container in started.values():
                container.remove(force=True, v=True)
            for image in images[: len(started)]:
                self.client.client.images.remove(image, force=True)

    def prune(self) -> None:
        """Remove all that was loaded and built: over many examples it would be gigabytes."""
        self.engine.docker("image", "prune", "--all", "--force")
        self.engine.docker("builder", "prune", "--all", "--force")

    def _start(self, image: str, platform: str, port: int) -> Any:
        return self.client.client.containers.run(
            image,
            detach=True,
            platform=platform,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": ""},
            network_mode="host",  # no bridge in this engine, so the container listens on the machine's own loopback
            environment={"EDGEPACK_PORT": str(port), "EDGEPACK_HOST": "127.0.0.1"},
            healthcheck={"interval": _SECOND_NS, "timeout": 120 * _SECOND_NS},  # the check itself is the image's own
        )


def _wait_ready(url: str, container: Any, start_s: float) -> None:
    end = time.monotonic() + start_s
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=10).close()
            return
        except OSError as error:
            container.reload()
            assert time.monotonic() < end and container.status == "running", f"{error}: {container.logs().decode()}"
            time.sleep(0.2)


def _wait_healthy(container: Any) -> None:
    end = time.monotonic() + _START_S
    while True:
        container.reload()
        health = container.attrs["State"]["Health"]
        if health["Status"] == "healthy":
            return
        assert time.monotonic() < end, health  # a start that took long was called unhealthy until now
        time.sleep(0.2)


def infer(url: str, rows: list[dict]) -> list[dict]:
    """What an agent answers to rows."""
    header = {"Content-Type": "application/json; format=pandas-records"}
    request = urllib.request.Request(f"{url}/infer", json.dumps(rows).encode(), header)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def assert_answers_as_onnxruntime(url: str, project: Path) -> None:
    """Ask for some golden rows and compare each output with what onnxruntime gives on this machine."""
    rows = [{"inputs": row["in.inputs"]} for row in json.loads((project / "golden.json").read_text())[:20]]
    session = onnxruntime.InferenceSession(project / "wine-line.onnx", providers=["CPUExecutionProvider"])
    given = np.array([row["inputs"] for row in rows], np.float32)
    expected = dict(
        zip([each.name for each in session.get_outputs()], session.run(None, {"inputs": given}), strict=True)
    )
    answers = infer(url, rows)
    for name, array in expected.items():
        got = np.array([row["out"][name] for row in answers], array.dtype).reshape(array.shape)
        np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-6, err_msg=name)


def assert_answers_as_golden(url: str, project: Path, rows: int = 5) -> None:
    """Ask for some golden rows and compare each output with the answer that is written beside it."""
    golden = json.loads((project / "golden.json").read_text())[:rows]
    asked = [{name[3:]: value for name, value in row.items() if name.startswith("in.")} for row in golden]
    answers = infer(url, asked)
    for row, answer in zip(golden, answers, strict=True):
        for name, value in row.items():
            if name.startswith("out."):
                np.testing.assert_allclose(answer["out"][name[4:]], value, rtol=1e-4, atol=1e-5, err_msg=name)
