from __future__ import annotations

import threading

import pytest

from buildx.side_by_side import side_by_side


def test_results_come_in_the_order_of_the_jobs_whoever_ends_first():
    last = threading.Event()

    def slow() -> str:
        assert last.wait(60)
        return "slow"

    def quick() -> str:
        last.set()
        return "quick"

    assert side_by_side([slow, quick], 2) == ["slow", "quick"]
    assert side_by_side([], 2) == []


def test_the_first_failure_in_time_is_the_one_that_is_raised():
    failed = threading.Event()

    def hurt_by_it() -> None:
        assert failed.wait(60)
        raise ValueError("because of the other")

    def cause() -> None:
        failed.set()
        raise KeyError("cause")

    with pytest.raises(KeyError, match="cause"):
        side_by_side([hurt_by_it, cause], 2)


def test_after_a_failure_no_further_job_begins():
    begun = []

    def fail() -> None:
        raise ValueError("it does not work")

    with pytest.raises(ValueError, match="it does not work"):
        side_by_side([fail, *[lambda: begun.append(1) or threading.Event().wait(0.05)] * 100], 1)
    assert len(begun) < 100


def test_no_more_jobs_run_at_once_than_asked_for():
    running, most, lock = 0, 0, threading.Lock()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    side_by_side([job] * 12, 3)
    assert 1 <= most <= 3
