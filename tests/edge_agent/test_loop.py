from __future__ import annotations

import logging
import threading
import time

from edge_agent.loop import Backoff, Loop
from edge_agent.telemetry.events import EventFormatter, event
from edgepack.errors import Unreachable


def test_the_wait_grows_to_its_cap_and_is_spread_over_the_whole_range():
    backoff = Backoff(first_s=2, cap_s=60)
    for failures, ceiling in [(1, 2), (2, 4), (3, 8), (9, 60), (500, 60)]:
        drawn = [backoff.wait(failures) for _ in range(300)]
        assert 0 <= min(drawn) < ceiling / 4
        assert ceiling * 3 / 4 < max(drawn) <= ceiling


def test_what_the_other_side_asked_for_is_waited_at_least():
    assert all(7 <= Backoff().wait(1, 7.0) <= 8 for _ in range(50))
    assert Backoff(cap_s=10).wait(1, 1e9) <= 11


def test_a_loop_goes_on_after_any_fault_and_says_when_it_works_again(caplog):
    outcomes = [Unreachable("hub away"), ZeroDivisionError("ours"), None]
    said = []

    def step():
        if (error := outcomes.pop(0)) is not None:
            raise error
        return 3.0

    loop = Loop("test", step, Backoff(0.001), said.append)
    with caplog.at_level(logging.INFO, "edgepack.agent"):
        assert loop.pass_once() <= 0.001
        assert loop.pass_once() <= 0.002
        assert loop.pass_once() == 3.0
    assert said == ["hub away", "fault of ours: ZeroDivisionError: ours", None]
    assert caplog.messages[-1] == "works again"


def test_an_outage_of_days_is_said_a_few_times_only(caplog):
    def step():
        raise Unreachable("hub away")

    loop = Loop("test", step, Backoff(0.001), lambda error: None)
    with caplog.at_level(logging.INFO, "edgepack.agent"):
        for _ in range(1000):
            loop.pass_once()
    assert len(caplog.messages) == 10


def test_notice_of_work_ends_the_wait_and_stop_leaves_at_once():
    passes = threading.Semaphore(0)

    def step():
        passes.release()
        return 3600.0

    loop = Loop("test", step, Backoff(), lambda error: None)
    loop.start()
    assert passes.acquire(timeout=30)
    loop.wake()
    assert passes.acquire(timeout=30)
    begun = time.monotonic()
    loop.stop()
    assert loop.join(30)
    assert time.monotonic() - begun < 25


def test_an_event_is_one_line_with_its_fields(caplog):
    with caplog.at_level(logging.INFO, "edgepack.agent"):
        event(logging.getLogger("edgepack.agent"), "bundle\nactivated", pipeline="demo", reason='a "b"', took_s=0.5)
    line = EventFormatter().format(caplog.records[0])
    assert line.endswith('info bundle activated pipeline=demo reason="a \\"b\\"" took_s=0.5')
