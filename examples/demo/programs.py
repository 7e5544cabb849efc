"""Starting and stopping edgepack's programs, as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


class Program:
    """One long-running program; it is ended by the process id it was started with."""

    def __init__(self, name: str, *arguments: str, log: Path, env: dict[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(BIN / name), *arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # Ctrl-C ends the demo, which then ends this in order
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: as a power supply would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not heard within 60 s."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def wait_for(self, url: str, seconds: float = 60) -> None:
        """Return once the URL answers 200; raise with the program's last lines if it ends or stays silent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=10):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])
        raise SystemExit(f"demo: {url} did not answer within {seconds:.0f} s; last lines of {self._log.name}:\n{tail}")


def call(*arguments: str, program: str = "edgepack", env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command with `--json` to its end and return its one object."""
    done = subprocess.run(
        [str(BIN / program), *arguments, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise SystemExit(f"demo: {program} {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def free_port() -> int:
    """A loopback port nobody listens on, and that the kernel gives to nobody by chance until it is taken."""
    first = min(_first_chance_port(), 32768)
    for port in random.SystemRandom().sample(range(10_000, max(first, 20_000)), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise SystemExit(f"demo: no port from 10000 to {first} is free on this machine")


def _first_chance_port() -> int:
    """The lowest port that a program gets which asks for any, or connects."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768
