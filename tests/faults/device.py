"""`Device`: the real agent as a program, killed with all its children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.right import write_bundles

HOUSE = Path(__file__).resolve().parents[2]
_MORTAL = "import ctypes; ctypes.CDLL(None).prctl(1, 9); "  # PR_SET_PDEATHSIG: no agent outlives a killed test run
AGENT = f"{_MORTAL}from edgepack.launch import agent; agent()"
FORGETFUL = f"{_MORTAL}from tests.faults.forgetful import agent; agent()"  # the planted bug: its log does not sync
# As AGENT, where clients are slow too: what a client sends on an open connection comes later than it would
PATIENT = f"{_MORTAL}from edge_agent.http import server; server._PARTING_S, server._STOP_S = 30, 60; {AGENT}"
ALL_DOORS = f"{_MORTAL}from tests.faults.all_doors import agent; agent()"


class Device:
    """One agent, from start to end. What it logs goes to `log`, which must not lie on a disk that is cut off."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        """`arguments` are Python's; what it prints first ends with the port it listens on."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGEPACK_")}
        self._log = log
        self._port: int | None = None
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**kept, "PYTHONPATH": str(HOUSE), **environment},
                start_new_session=True,
            )

    @classmethod
    def on(cls, data: Path, log: Path, *flags: str, program: str = AGENT, **environment: str) -> Device:
        """`edgepack-agent run` on a data folder."""
        return cls(log, "-c", program, "run", "--port", "0", "--data", str(data), *flags, **environment)

    @classmethod
    def of_all_doors(cls, place: Path, log: Path) -> Device:
        """An agent on a fresh data folder that serves the pipelines of `tests.faults.right`."""
        layouts = map(str, write_bundles(place / "bundles"))
        return cls(log, "-c", ALL_DOORS, str(place / "data"), *layouts)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def port(self, seconds: float = 90) -> int:
        """Where it answers, once its pipelines are loaded. Raises OSError with its last words if it never does."""
        if self._port is None:
            self._port = self._read_port(seconds)
        return self._port

    def _read_port(self, seconds: float) -> int:
        assert self.process.stdout is not None
        deadline, said = time.monotonic() + seconds, b""
        while not said.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
                raise OSError(f"the agent did not serve within {seconds:g} s; its last lines:\n{tail}")
            said += piece
        return int(said.decode().strip().rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL for it and what it started."""
        with contextlib.suppress(ProcessLookupError):  # it has ended, and left nobody behind
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
