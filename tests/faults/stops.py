"""SIGTERM while clients ask: what an agent accepted is answered before it ends."""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from oci.layout import write_layout
from tests.edge_agent.real_hub import make_bundle
from tests.edge_agent.served import JSON, until
from tests.faults.clients import PIPELINE, read_log
from tests.faults.device import PATIENT, Device

_CONNECTIONS = 8
_BODY = json.dumps([{"x": [1, 2, 3]}])


@dataclass
class Stop:
    """What became of the requests around one stop."""

    answered: int = 0
    seconds: float = 0.0  # from the signal to the end of the process
    code: int | None = None
    unanswered: list[str] = field(default_factory=list)  # in the log, and nobody was told
    dropped: list[str] = field(default_factory=list)  # sent on an open connection, then neither logged nor answered
    refused: list[str] = field(default_factory=list)  # answers that were no rows


class _Clients:
    """Clients that ask until nobody listens: most on a kept connection, every fourth on a new one each time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(_CONNECTIONS)]

    def __enter__(self) -> _Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for turn in range(1 << 20):
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                return  # nobody listens: nothing was sent
            try:
                self._ask_once(connection, f"{number}-{turn}")
            except (OSError, http.client.HTTPException):
                connection.close()
            if number % 4 == 3:
                connection.close()

    def _ask_once(self, connection: http.client.HTTPConnection, request_id: str) -> None:
        self.sent.add(request_id)
        headers = {"Content-Type": JSON, "X-Request-Id": request_id}
        connection.request("POST", f"/pipelines/{PIPELINE}", _BODY, headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status == 200:
            self.answered.add(request_id)
        else:
            self.refused.append(f"{answer.status}: {data[:200]!r}")


def stop_under_load(place: Path, seed: int) -> Stop:
    """Start an agent, let clients ask, send SIGTERM at a random moment, and look at the log afterwards."""
    write_layout(make_bundle(place / "bundle"), place / "layout")
    data, log, stop = place / "data", place / "agent.log", Stop()
    flags = ("--bundle", str(place / "layout"))
    with Device.on(data, log, *flags, program=PATIENT) as device, _Clients(device.port()) as clients:
        until(lambda: clients.answered, "the first answers are there")
        time.sleep(random.Random(seed).uniform(0.1, 0.5))
        begun = time.monotonic()
        device.process.send_signal(signal.SIGTERM)
        stop.code = device.process.wait(60)
        stop.seconds = time.monotonic() - begun
    with Device.on(data, log) as device:
        logged = {row["metadata"]["request_id"] for row in read_log(device.port())}
    stop.answered, stop.refused = len(clients.answered), clients.refused
    stop.unanswered = sorted(logged - clients.answered)
    stop.dropped = sorted(clients.sent - clients.answered - logged)
    assert clients.answered <= logged, "answered, and not in the log"
    return stop
