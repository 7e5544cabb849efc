"""`Ordeal`: an agent behind its real socket, one damaged request after another, a right one after each.

What is held against it: it lives; it says nothing but 2xx, 4xx and 503 (and of heads that are no request 501 and 505,
RFC 9110 §15.6.2 and §15.6.6); every answer is framed as HTTP/1.1 and its error is one line of JSON; the right request
that follows gets its right numbers. And the short ways that an agent takes for messages it has seen before lead nowhere
else: the same bytes with a request id of their own, which keeps them off such ways, get the same answer.
"""

from __future__ import annotations

import http.client
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.edge_agent.served import ARROW
from tests.faults.device import Device
from tests.faults.mutants import Mutant, mutant
from tests.faults.right import STREAM, Right, right_requests
from tests.faults.wire import Answer, BadlyFramed, exchange

_OFTEN = 8
_OF_HEADS = {501: "is not known here", 505: "is not spoken here"}  # status: what its error says


@dataclass
class Outcome:
    """What became of the mutants."""

    mutants: int = 0
    statuses: Counter[int] = field(default_factory=Counter)  # 0: the server closed without a word
    peak_rss_mib: float = 0.0


class Ordeal:
    """Mutants of one seed. Raises AssertionError with seed, number and bytes of the one that did harm."""

    def __init__(self, device: Device, seed: int) -> None:
        self.outcome = Outcome()
        self._device, self._seed, self._port = device, seed, device.port()
        self._rights = right_requests()
        self._http = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def __enter__(self) -> Ordeal:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def run(self, numbers: range) -> Outcome:
        """Try the mutants of these numbers."""
        for right in self._rights:
            assert right.is_answered(self._ask(right)), f"before any damage '{right.name}' is not answered rightly"
            for _ in range(_OFTEN):  # from now on the agent knows the message, and may take a short way
                exchange(self._port, right.request.encode())
        for number in numbers:
            self._try(mutant(self._rights, self._seed, number))
        for right in self._rights:
            assert right.is_answered(self._ask(right)), f"at the end '{right.name}' is not answered rightly"
        self.outcome.peak_rss_mib = peak_rss_mib(self._device.process.pid)
        return self.outcome

    def _try(self, each: Mutant) -> None:
        try:
            answers = exchange(self._port, each.data)
            faults = [said for answer in answers if (said := fault_of(answer))]
            if not faults and is_comparable(each):
                faults = differences(answers, exchange(self._port, named(each.data)))
        except (OSError, BadlyFramed) as error:
            answers, faults = [], [f"{type(error).__name__}: {error}"]
        self.outcome.mutants += 1
        self.outcome.statuses.update([answer.status for answer in answers] or [0])
        if not faults:
            try:
                answer = self._ask(each.right)
                if not each.right.is_answered(answer):
                    faults = [f"the right request that follows gets {answer.status}: {answer.body[:300]!r}"]
            except (OSError, http.client.HTTPException, ValueError) as error:
                faults = [f"the right request that follows ends with {type(error).__name__}: {error}"]
        assert not faults, self._told(each, faults)

    def _ask(self, right: Right) -> Answer:
        request = right.request
        self._http.request(request.method, request.target, request.body or None, dict(request.headers))
        answer = self._http.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def _told(self, each: Mutant, faults: list[str]) -> str:
        ended = self._device.process.poll()
        path = Path(tempfile.gettempdir()) / f"mutant-{self._seed}-{each.number}.bin"
        path.write_bytes(each.data)
        return (
            f"mutant {each.number} of seed {self._seed}, made of '{each.right.name}' ({', '.join(each.done)}): "
            f"{'; '.join(faults)}; the agent {'lives' if ended is None else f'ended with {ended}'}; "
            f"its {len(each.data)} bytes are in {path} and begin with {each.data[:1500]!r}"
        )


def fault_of(answer: Answer) -> str | None:
    """What is wrong with an answer to a damaged request, or None."""
    status = answer.status
    if status < 400:
        return None if 200 <= status < 300 else f"status {status}"
    try:
        said = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"a {status} without an error in JSON: {answer.body[:200]!r}"
    if not isinstance(said, str) or "\n" in said or not said:
        return f"the error of a {status} is no line: {said!r}"
    if status >= 500 and status != 503 and _OF_HEADS.get(status, "\n") not in said:
        return f"status {status}: {said}"
    return None


def is_comparable(each: Mutant) -> bool:
    """Whether a mutant gets the same answer each time it is sent: not the log, nor a head near its limit."""
    line, _, rest = each.data.partition(b"\r\n")
    is_row = each.right.request.method == "POST" and not each.right.request.target.startswith("/logs")
    return is_row and each.right.request.target.encode() in line and len(rest.partition(b"\r\n\r\n")[0]) < 15_000


def named(data: bytes) -> bytes:
    """The same request with an id."""
    return data.replace(b"\r\n", b"\r\nX-Request-Id: by-the-ordinary-way\r\n", 1)


def differences(answers: list[Answer], others: list[Answer]) -> list[str]:
    """What is answered otherwise when the same is asked again, beside the time and what it took."""
    found = [(answer.status, _timeless(answer)) for answer in answers]
    expected = [(answer.status, _timeless(answer)) for answer in others]
    if any(status == 503 for status, _ in found + expected):
        return []  # the machine was too busy for one of them
    return [] if found == expected else [f"with a request id it is answered {expected!r}, without {found!r}"]


def _timeless(answer: Answer) -> Any:
    kind = answer.headers.get("content-type", "")
    if answer.headers.get("content-encoding") or answer.status != 200:
        return None  # packed bytes depend on the time in them
    if kind in (ARROW, STREAM):
        reader = pa.ipc.open_file if kind == ARROW else pa.ipc.open_stream
        table = reader(pa.BufferReader(answer.body)).read_all()
        return _without_times(table.to_pylist())
    return _without_times(json.loads(answer.body)) if kind == "application/json" else answer.body


def _without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_times(each) for each in value]
    if isinstance(value, dict):
        # whatever separator the names are joined with
        kept = {name: each for name, each in value.items() if name != "time" and not name.endswith("elapsed")}
        return {name: _without_times(each) for name, each in kept.items()}
    return value


def peak_rss_mib(pid: int) -> float:
    """The most memory that a process ever had in use."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
