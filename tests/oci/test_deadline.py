"""How long an answer is waited for, by a clock of the test's own. Peers that drip: test_registry_faults.py."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from oci import deadline


class Peer(io.RawIOBase):
    """Gives so many bytes a second, in pieces of one second."""

    def __init__(self, clock: SimpleNamespace, bytes_s: int) -> None:
        self.clock, self.bytes_s = clock, bytes_s

    def readinto(self, buffer: Any, /) -> int:
        self.clock.now += 1.0
        return self.bytes_s


@pytest.mark.parametrize(
    ("bytes_s", "slowest_bytes_s", "seconds"),
    [(200, None, 10), (200, 100, 1000), (100, 100, 1000), (50, 100, 20), (1, 100, 11)],
    ids=["without a rate", "faster", "as fast", "slower", "a drip"],
)
def test_an_answer_is_waited_for_in_all_or_as_long_as_it_comes_at_a_bearable_rate(
    monkeypatch: pytest.MonkeyPatch, bytes_s: int, slowest_bytes_s: float | None, seconds: int
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: clock.now))
    sock: Any = SimpleNamespace(gettimeout=lambda: 10.0, settimeout=lambda seconds: None)
    received = deadline._Received(Peer(clock, bytes_s), sock, 60.0, slowest_bytes_s)
    for second in range(seconds):
        clock.now += 5.0  # what its reader does between two reads costs none of it
        assert received.readinto(bytearray(200)) == bytes_s, second
    if seconds < 1000:
        with pytest.raises(TimeoutError, match="the time for this answer is over"):
            received.readinto(bytearray(200))


def test_bytes_that_came_fast_are_no_time_for_a_drip_of_days(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: clock.now))
    sock: Any = SimpleNamespace(gettimeout=lambda: 10.0, settimeout=lambda seconds: None)
    peer = Peer(clock, 1_000_000)
    received = deadline._Received(peer, sock, 60.0, 100)
    for _ in range(100):
        received.readinto(bytearray(1))
    peer.bytes_s = 1
    for _ in range(11):
        received.readinto(bytearray(1))
    with pytest.raises(TimeoutError):
        received.readinto(bytearray(1))
