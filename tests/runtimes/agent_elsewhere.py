"""The real agent, run by the interpreter of another environment."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from arch.target import Target
from tests.runtimes.engine_environment import engine_environ

_JSON = "application/json; format=pandas-records"
_AGENT = "from edgepack.launch import agent; agent()"
_WAIT_S = 120


@dataclass(frozen=True)
class Running:
    """An agent that serves one pipeline. `call` runs another of its commands beside it, `said` is its log."""

    url: str
    call: Callable[..., subprocess.CompletedProcess[str]]
    said: Path

    def infer(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The outputs for some rows."""
        answer = requests.post(f"{self.url}/infer", json.dumps(rows), headers={"Content-Type": _JSON}, timeout=_WAIT_S)
        assert answer.status_code == 200, answer.text
        return [row["out"] for row in answer.json()]

    def get(self, path: str, **headers: str) -> requests.Response:
        """Ask one of its pages."""
        return requests.get(f"{self.url}{path}", headers=headers, timeout=_WAIT_S)

    @property
    def pipeline(self) -> dict[str, Any]:
        """Its pipeline as `status --json` has it."""
        (found,) = json.loads(self.call("status", "--json").stdout)["pipelines"]
        return dict(found)


def call(python: Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the agent's commands to its end."""
    command = [str(python), "-c", _AGENT, *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=_WAIT_S)


def environ_of(layout: Path, target: Target, **more: str) -> dict[str, str]:
    """What an image for a target says to its agent; data lie beside the layout."""
    return engine_environ(
        EDGEPACK_TARGET=str(target),
        EDGEPACK_DATA=str(layout.parent / "data"),
        EDGEPACK_BUNDLE=str(layout),
        EDGEPACK_PORT="0",
        **more,
    )


@contextmanager
def running(python: Path, layout: Path, target: Target, **more: str) -> Iterator[Running]:
    """Run it until the test is through; then it must end by itself when it is told to."""
    environ, said = environ_of(layout, target, **more), layout.parent / "said"
    with said.open("w") as log:
        process = subprocess.Popen([python, "-c", _AGENT, "run"], env=environ, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout
        try:
            line = process.stdout.readline().decode()
            assert line.startswith("serving "), said.read_text()
            yield Running(line.split()[-1], lambda *arguments: call(python, environ, *arguments), said)
            process.send_signal(signal.SIGTERM)
            assert process.wait(_WAIT_S) == 0, said.read_text()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
