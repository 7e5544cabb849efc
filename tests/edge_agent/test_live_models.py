"""Models that change where they lie while they are served: a real agent and server, the real packager, real clients."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from edge_agent.status import read_status
from edgepack.errors import RuntimeFailed
from tests.edge_agent.live_agent import ONES, Clients, Live, proven
from tests.runtimes.models import linear

ROUNDS = int(os.environ.get("EDGEPACK_TEST_RELOADS", "1"))  # of five changes each under load; 20 is the long form


def test_models_come_go_and_change_under_load_without_a_failed_request(
    live: Callable[..., Live], tmp_path: Path
) -> None:
    served = live({"line/1/m.onnx": 1}, proven(tmp_path))
    changes: list[tuple[Callable[[], Any], float]] = [
        (lambda: served.put("line/2/m.onnx", 2), 6.0),  # added
        (lambda: served.put("line/2/m.onnx", 3), 9.0),  # changed in place
        (lambda: served.put("line/10/m.onnx", b"no model"), 9.0),  # broken: the old one goes on
        (lambda: served.put("line/10/m.onnx", 4), 12.0),  # mended
        (lambda: shutil.rmtree(served.source / "line/10"), 9.0),  # removed
    ]
    ask = partial(requests.Session.post, url=f"{served.server.url}/predict?model=line", json=ONES, timeout=30)
    with Clients(ask) as clients:
        for change, expected in changes * ROUNDS:
            change()
            served.settle()
            clients.all_answered()
            assert (served.ask("line"), served.ask("line", "1")) == (expected, 3.0)
    assert clients.failed == []
    print(f"{len(changes) * ROUNDS} changes, {sum(clients.answers)} answers, none failed")
    assert clients.said == {f'{{"prediction":{{"y":[[{each}]]}}}}' for each in (3.0, 6.0, 9.0, 12.0)}


def test_a_model_that_is_restructured_is_served_as_it_lies_now(live: Callable[..., Live]) -> None:
    served = live({"line/m.onnx": 1, "other/1/m.onnx": 5})
    assert served.ask("line", "1") == 3.0
    served.put("line/7/m.onnx", 2)
    served.settle()
    assert served.reasons()["line"].startswith("model 'line': 'm.onnx' lies beside version folders"), "half-way"
    assert served.ask("line") == 3.0
    (served.source / "line/m.onnx").unlink()
    served.settle()
    assert (served.ask("line"), served.ask("line", "7"), served.reasons()["line"]) == (6.0, 6.0, "")
    assert served.ask("line", "1")[0] == 404
    shutil.rmtree(served.source / "line")
    (served.source / "stray").mkdir()
    served.settle()
    assert read_status(served.data).models["stray"].startswith("model 'stray' has no files: expected a model")
    code, said = served.ask("line")
    assert code == 404 and "'line' is not served here: there is 'other'" in said


def test_a_broken_version_is_told_of_everywhere_and_is_not_tried_again_until_it_changes(
    live: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    served = live({"line/1/m.onnx": 1})
    served.put("line/2/m.onnx", b"no model")
    for _ in range(3):
        served.settle()
    assert served.ask("line") == 3.0
    reason = "version 2 of 'line': 'm.onnx' is not a whole ONNX model"
    assert served.reasons()["line"].startswith(reason)
    assert read_status(served.data).models["line"].startswith(reason)
    said = [each for each in caplog.records if each.message == "model not taken"]
    assert len(said) == 1 and said[0].fields["reason"].startswith(reason)  # type: ignore[attr-defined]
    shutil.rmtree(served.source / "line/2")
    served.settle()
    assert (served.reasons(), read_status(served.data).models) == ({"line": ""}, {})


def test_files_that_are_being_written_are_left_alone_until_they_rest(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1})
    data = linear(factor=2)
    for size in (10, 50, len(data)):
        served.put("line/2/m.onnx", data[:size])
        served.models.step()
        assert (served.ask("line"), served.reasons()["line"]) == (3.0, "")
    served.models.step()
    assert served.ask("line") == 6.0


def test_a_folder_that_vanishes_leaves_what_is_in_memory_and_refuses_what_is_not(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1, "line/2/m.onnx": 2}, in_memory=1)
    gone = served.source.rename(served.source.with_name("gone"))
    served.settle()
    assert served.ask("line") == 6.0
    code, said = served.ask("line", "1")
    assert code == 503 and said.startswith("model 'line' does not come back: '")
    assert read_status(served.data).models["models"].startswith("'models' cannot be looked at, what it held goes on")
    gone.rename(served.source)
    served.settle()
    assert (served.ask("line", "1"), read_status(served.data).models) == (3.0, {})


def test_versions_are_asked_for_by_their_numbers_in_the_open_inference_protocol(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1, "line/20/m.onnx": 2})
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
    url = f"{served.server.url}/v2/models/line"
    for path, expected in (("", 6.0), ("/versions/20", 6.0), ("/versions/1", 3.0)):
        answer = served.http.post(f"{url}{path}/infer", json=body, timeout=30).json()
        assert answer["outputs"][0]["data"] == [expected]
    assert served.http.get(url, timeout=30).json()["versions"][1:] == ["20", "1"]
    refused = served.http.post(f"{url}/versions/3/infer", json=body, timeout=30)
    assert refused.status_code == 404 and "or '20' or '1'" in refused.json()["error"]


def test_what_was_wrong_with_a_model_is_not_told_after_it_is_gone(live: Callable[..., Live]) -> None:
    served = live({"line/m.onnx": 1})
    served.put("stray/m.onnx", b"no model")
    (served.source / "empty").mkdir()
    served.settle()
    told = {name: reason for name, reason in served.reasons().items() if name != "line"}
    assert {name: reason.partition(":")[0] for name, reason in told.items()} == {
        "stray": "version 1 of 'stray'",
        "empty": "model 'empty' has no files",
    }
    assert read_status(served.data).models == told
    shutil.rmtree(served.source / "stray")
    (served.source / "empty").rmdir()
    served.settle()
    assert (served.reasons(), read_status(served.data).models) == ({"line": ""}, {})


def test_trouble_with_the_only_model_of_a_folder_of_its_name_lasts(
    live: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    """The source and its model are both called `models`."""
    served = live({"1/m.onnx": 1})
    served.put("2/m.onnx", b"no model")
    for _ in range(3):
        served.settle()
    assert served.reasons()["models"].startswith("version 2 of 'models': ")
    assert [each.message for each in caplog.records].count("model not taken") == 1


def test_a_version_that_does_not_load_is_not_listed(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    served = live({"line/1/m.onnx": 1})

    def no_memory(*_: Any) -> None:
        raise RuntimeFailed("no memory just now")

    monkeypatch.setattr(served.agent._stage, "load", no_memory)
    served.put("line/2/m.onnx", 2)
    served.settle()
    assert served.reasons()["line"] == "version 2 of 'line': no memory just now"
    assert (served.versions("line"), served.ask("line")) == (["1"], 3.0)
    assert served.ask("line", "2")[1].endswith("or '1'")


def test_of_versions_that_go_together_none_comes_back(
    live: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    served = live({f"line/{number}/m.onnx": number for number in (1, 9, 10)})
    for number in (9, 10):
        shutil.rmtree(served.source / f"line/{number}")
    with caplog.at_level(logging.INFO, "edgepack.agent"):
        caplog.clear()
        served.settle()
    assert served.ask("line") == 3.0
    gone = [each.fields["number"] for each in caplog.records if each.message == "model removed"]  # type: ignore[attr-defined]
    assert gone == ["9", "10"]


def test_a_fault_of_ours_in_one_model_holds_up_no_other(live: Callable[..., Live]) -> None:
    served = live({"line/m.onnx": 1})
    make = served.live.make

    def faulty(name: str, number: str) -> Path:
        if name == "a":
            raise ValueError("injected")
        path: Path = make(name, number)
        return path

    served.live.make = faulty
    served.put("a/m.onnx", 2)
    served.put("c/m.onnx", 3)
    served.settle()
    assert served.ask("c") == 9.0
    assert served.reasons()["a"] == "version 1 of 'a': fault of ours: ValueError: injected"


def test_what_is_not_followed_is_taken_at_the_start(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1})
    served.put("line/2/m.onnx", 2)
    served.models.start(follow=False)
    assert served.models.loop.join(0)
    found = {}  # without the name of the only model too
    for query in ("", "?version=1", "?version=2", "?version=latest", "?model=line&version=latest"):
        answer = served.http.post(f"{served.server.url}/predict{query}", json=ONES, timeout=30)
        found[query] = answer.json()["prediction"]["y"][0][0]
    assert list(found.values()) == [6.0, 3.0, 6.0, 6.0, 6.0]
    assert served.http.get(f"{served.server.url}/v2/models/line/versions/latest", timeout=30).ok
