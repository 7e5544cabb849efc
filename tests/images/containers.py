"""Containers of the images under test, started and ended by way of the package `docker`."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from buildx.engine import Engine as Client
from tests.images.engine import Engine

_START_S = 100  # an emulated start takes 10 to 20 times as long as a native one


@dataclass(frozen=True)
class Node:
    """An engine of ours and a client of it."""

    engine: Engine
    client: Client

    @contextlib.contextmanager
    def serving(self, image: str, platform: str) -> Iterator[str]:
        """Run an image as its printed line does: read-only, without capabilities. Gives the agent's address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        container = self.client.client.containers.run(
            image,
            detach=True,
            platform=platform,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": ""},
            network_mode="host",  # no bridge in this engine, so the container listens on the machine's own loopback
            environment={"EDGEPACK_PORT": str(port), "EDGEPACK_HOST": "127.0.0.1"},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, container)
            yield url
        finally:
            container.remove(force=True, v=True)


def _wait(url: str, container) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=10).close()
            return
        except OSError as error:
            container.reload()
            assert time.monotonic() < end and container.status == "running", f"{error}: {container.logs().decode()}"
            time.sleep(0.2)


def infer(url: str, rows: list[dict]) -> list[dict]:
    """What an agent answers to rows."""
    header = {"Content-Type": "application/json; format=pandas-records"}
    request = urllib.request.Request(f"{url}/infer", json.dumps(rows).encode(), header)
    with urllib.request.urlopen(request, timeout=60) as answer:
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
