"""Models that a predictor's bundle leaves out: who waits for one, and what is told where it does not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundle.model_folders import Found
from edge_agent.doors.seam import Answer, Call, Route, respond
from edge_agent.live.bringing import Bringing
from edge_agent.live.making import Making
from edge_agent.pipelines.serving import Late, Serving
from edgepack.errors import BadInput, Unreachable
from runtimes.protocol import ModelAbsent

KEY = ("belt", "")


class Bringer:
    """A source that brings what it is asked for, or raises."""

    name, removes = "belt", True

    def __init__(self, mark: str = "one") -> None:
        self.mark, self.asked, self.error = mark, list[str](), BadInput("the file is cut off")
        self.go_on = threading.Event()

    def look(self) -> Found:
        return Found({"belt": {"": self.mark}})

    def make(self, name: str, number: str) -> Path:
        raise AssertionError("a model is brought, nothing is made anew")

    def bring(self, name: str, absent: ModelAbsent) -> Path:
        self.asked.append(f"{name} {absent.model} {absent.version}")
        assert self.go_on.wait(60)
        raise self.error


class Made(Making):
    """Makes what a source brings into a bundle, whatever that is."""

    def bundle(self, source: Any, key: Any, make: Callable[[], Path] | None = None) -> AbstractContextManager[Any]:
        assert make is not None
        try:
            make()
        except LookupError:
            return nullcontext(None)
        raise AssertionError("the source raises")


def absent(model: str = "a") -> ModelAbsent:
    return ModelAbsent(model, "1", [], frozenset())


def test_what_does_not_come_is_told_and_not_tried_again_until_its_files_change() -> None:
    source = Bringer()
    source.go_on.set()
    bringing = Bringing(Serving(), Made(None), lambda key, bundle: None)  # type: ignore[arg-type]  # makes nothing
    for _ in range(2):
        with pytest.raises(Unreachable, match=r"^model 'a', version 1, does not come: the file is cut off$"):
            bringing.bring(source, KEY, absent(), "one", time.monotonic() + 60)
    assert source.asked == ["belt a 1"]
    source.mark, source.error = "two", BadInput("it is cut off still")
    with pytest.raises(Unreachable, match="it is cut off still"):
        bringing.bring(source, KEY, absent(), "two", time.monotonic() + 60)
    assert len(source.asked) == 2
    source.error = ZeroDivisionError("ours")  # type: ignore[assignment]  # a fault of ours is told as one
    with pytest.raises(ZeroDivisionError):
        bringing.bring(source, KEY, absent("b"), "two", time.monotonic() + 60)


def test_those_who_ask_for_the_same_wait_for_one_making_and_no_longer_than_they_may() -> None:
    source, there = Bringer(), set[tuple[str, str]]()
    source.error = LookupError()  # type: ignore[assignment]  # it comes
    serving: Any = SimpleNamespace(pipelines=[SimpleNamespace(name="belt", absent={("a", "1")})])

    def switch(key: Any, bundle: Any) -> None:
        serving.pipelines[0].absent = there

    bringing = Bringing(serving, Made(None), switch)  # type: ignore[arg-type]
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(bringing.bring, source, KEY, absent(), "one", time.monotonic() + 60) for _ in "123"]
        while not source.asked:
            time.sleep(0.001)
        with pytest.raises(Late):
            bringing.bring(source, KEY, absent(), "one", time.monotonic())
        source.go_on.set()
        assert [each.result() for each in waiting] == [None, None, None]
    assert source.asked == ["belt a 1"]


def test_a_request_whose_models_have_no_room_at_once_is_refused_in_the_end() -> None:
    serving, brought = Serving(), list[str]()
    left = iter("abababab")

    def door(serving: Serving, call: Call) -> Answer:
        raise absent(next(left))

    call = Call("POST", "/x", "", {}, b"", "r-7")
    assert respond(Route("POST", "/x", door), serving, call, {}).status == 503, "nobody brings anything"
    serving.bring = lambda name, lacking, by: brought.append(lacking.model)
    answer = respond(Route("POST", "/x", door), serving, call, {})
    assert answer.status == 503 and b"model 'b', version 1, is not on the disk" in answer.join()
    assert brought == ["b", "a", "b", "a"]
    call.deadline = 0.0
    assert b"ask again" in respond(Route("POST", "/x", door), serving, call, {}).join()
