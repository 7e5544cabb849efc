"""Models that left memory or the disk: which ones do, who brings them back, and what others notice of it."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edge_agent.pipelines.repository import Repository
from edge_agent.pipelines.serving import Late
from edge_agent.status import read_status
from edgepack.errors import RuntimeFailed
from tests.edge_agent.live_agent import ONES, Clients, Hold, Live
from tests.edge_agent.served import until


def test_the_least_recently_used_leave_memory_and_disk_and_come_back_when_asked_for(live: Callable[..., Live]) -> None:
    served = live(
        {f"{name}/1/m.onnx": factor for name, factor in (("a", 1), ("b", 2), ("c", 3))}, in_memory=2, on_disk=2
    )
    bundles = served.data / "bundles"

    def figures() -> tuple[int, int]:
        return len(served.agent.serving.in_memory), len([each for each in bundles.iterdir() if each.name[0] != "."])

    assert served.ask("a") == 3.0
    assert figures() == (2, 2)
    for name, expected in (("b", 6.0), ("c", 9.0), ("b", 6.0)):
        assert served.ask(name) == expected
        assert figures() == (2, 2)
    assert [name for name, _ in served.agent.serving.in_memory] == ["c", "b"]
    installed = served.agent.state.installed().values()
    assert {each.active.manifest[7:] for each in installed} == {path.name for path in bundles.iterdir()}
    assert sorted(served.reasons()) == ["a", "b", "c"]
    assert served.http.get(f"{served.server.url}/v2/models", timeout=30).json() == {"models": ["a", "b", "c"]}
    unnamed = served.http.post(f"{served.server.url}/predict", json=ONES, timeout=30)
    assert "several pipelines are served, choose one by its path: 'a', 'b', 'c'" in unnamed.json()["error"]
    answer = served.http.get(f"{served.server.url}/v2/models/a", timeout=30)
    assert (answer.status_code, answer.json()["error"]) == (
        503,
        "model 'a' rests to save memory: an inference request wakes it",
    )
    assert served.http.get(f"{served.server.url}/readyz", timeout=30).status_code == 200


def test_a_client_may_load_what_left_memory_and_disk(live: Callable[..., Live]) -> None:
    served = live({f"{name}/1/m.onnx": factor for name, factor in (("a", 1), ("b", 2))}, in_memory=1, on_disk=1)
    served.agent.serving.control = Repository(served.agent.serving, served.agent._activator)
    for name in ("a", "b"):
        assert served.http.post(f"{served.server.url}/v2/repository/models/{name}/load", timeout=30).json() == {}
        assert served.agent.serving.in_memory == [(name, "")]


def test_clients_of_more_models_than_fit_into_memory_are_all_answered(live: Callable[..., Live]) -> None:
    """Each wakes what the other has just put to rest: what was woken may rest again before it is held."""
    served = live({f"{name}/m.onnx": factor for factor, name in enumerate("abcd", 1)}, in_memory=1)
    turns = itertools.cycle("abcd")
    with Clients(lambda http: http.post(f"{served.server.url}/predict?model={next(turns)}", json=ONES)) as clients:
        clients.all_answered()
    assert clients.failed == []
    assert clients.said == {f'{{"prediction":{{"y":[[{3.0 * factor}]]}}}}' for factor in range(1, 5)}


def test_others_answer_and_come_back_while_a_model_is_being_made(live: Callable[..., Live]) -> None:
    served = live({"a/1/m.onnx": 1, "b/1/m.onnx": 2}, in_memory=1)
    hold = Hold(served.live, "c")
    served.put("c/1/m.onnx", 3)
    served.models.step()
    with ThreadPoolExecutor(1) as looks:
        look = looks.submit(served.models.step)
        assert hold.begun.wait(60)
        with ThreadPoolExecutor(4) as clients:
            found = list(clients.map(lambda name: served.ask_alone(name), "abab"))
        hold.go_on.set()
        look.result()
    assert found == [3.0, 6.0] * 2
    assert served.ask("c") == 9.0


def test_requests_for_a_model_that_is_made_for_them_keep_no_thread_from_others(live: Callable[..., Live]) -> None:
    served = live({f"{name}/1/m.onnx": factor for name, factor in (("a", 1), ("b", 2))}, in_memory=1, on_disk=1)
    assert served.ask("b") == 6.0
    hold, woken = Hold(served.live, "a"), list[Any]()
    wake: Any = served.agent.serving.wake
    served.agent.serving.wake = lambda key, by: (woken.append(key), wake(key, by))[1]
    with ThreadPoolExecutor(4) as clients:
        waiting = [clients.submit(served.ask_alone, "a") for _ in range(4)]
        until(lambda: woken == [("a", "")] * 4, "all wait, which is more than there are threads")
        assert served.ask("b") == 6.0
        hold.go_on.set()
        assert [each.result() for each in waiting] == [3.0] * 4
    assert hold.count == 1


def test_a_request_waits_for_a_model_no_longer_than_it_may(live: Callable[..., Live]) -> None:
    served = live({f"{name}/1/m.onnx": 1 for name in "ab"}, in_memory=1, on_disk=1)
    assert served.ask("b") == 3.0
    hold = Hold(served.live, "a")
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(served.ask_alone, "a")
        assert hold.begun.wait(60)
        for late in (time.monotonic() - 1, time.monotonic() + 0.01):
            with pytest.raises(Late, match="'a'"):
                served.agent.serving.lease("a", wake_by=late)
        hold.go_on.set()
        assert first.result() == 3.0


def test_a_model_that_failed_to_wake_comes_back_once_its_cause_is_gone(
    live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = live({"a/1/m.onnx": 1, "b/1/m.onnx": 2}, in_memory=1)
    (rests,) = served.agent.serving.resting

    def no_memory(*_: Any) -> None:
        raise RuntimeFailed("no memory just now")

    with monkeypatch.context() as now:
        now.setattr(served.agent._stage, "load", no_memory)
        for _ in range(4):
            assert served.ask(rests) == (503, f"model '{rests}' does not come back: no memory just now")
    assert served.ask(rests) == {"a": 3.0, "b": 6.0}[rests]


def test_a_bundle_that_rots_while_its_model_rests_is_made_again(live: Callable[..., Live]) -> None:
    served = live({"a/1/m.onnx": 1, "b/1/m.onnx": 2}, in_memory=1)
    (rests,) = served.agent.serving.resting
    manifest = served.agent.state.installed()[rests].active.manifest
    (rotten,) = (served.data / "bundles" / manifest[7:]).rglob("*.onnx")
    rotten.chmod(0o644)
    rotten.write_bytes(b"rotten")
    code, said = served.ask(rests)
    assert code == 503 and "is damaged on this disk" in said
    assert served.ask(rests) == {"a": 3.0, "b": 6.0}[rests]


def test_a_broken_version_that_waits_is_made_once_and_told_of(live: Callable[..., Live]) -> None:
    served = live({"line/2/m.onnx": 2}, in_memory=1)
    served.put("line/1/m.onnx", b"no model")
    served.settle()
    assert served.versions("line") == ["2", "1"]
    hold = Hold(served.live, "line")
    hold.go_on.set()
    first = served.ask("line", "1")
    assert first[0] == 503 and "'m.onnx' is not a whole ONNX model" in first[1]
    for _ in range(3):
        assert served.ask("line", "1")[0] == 404
        served.settle()
    assert (hold.count, served.versions("line"), served.ask("line")) == (1, ["2"], 6.0)
    reason = "version 1 of 'line': 'm.onnx' is not a whole ONNX model"
    assert served.reasons()["line"].startswith(reason)
    assert read_status(served.data).models["line"].startswith(reason)
    served.put("line/1/m.onnx", 1)
    served.settle()
    assert (served.ask("line", "1"), read_status(served.data).models) == (3.0, {})


def test_a_version_that_waits_does_not_take_the_place_of_a_higher_one_where_it_is_broken(
    live: Callable[..., Live],
) -> None:
    served = live({"line/3/m.onnx": 3, "line/1/m.onnx": 1, "other/m.onnx": 5}, in_memory=1)
    served.put("line/2/m.onnx", b"no model")
    served.settle()
    shutil.rmtree(served.source / "line/3")
    served.settle()
    assert read_status(served.data).models["line"].startswith("version 2 of 'line': 'm.onnx' is not a whole ONNX")
    served.settle()
    assert (served.ask("line"), served.versions("line")) == (3.0, ["1"])
