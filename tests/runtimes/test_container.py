"""A step that a container answers: dialects, names, and every way in which it may go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.pipeline import PipelineSpec, StepSpec, address_variable
from edgepack.errors import BadInput, Unreachable
from runtimes import container
from runtimes.container import ContainerRuntime
from runtimes.protocol import CONTAINER_REQUESTS, Misfits, RowsRefused
from tests.edge_agent.served import until
from tests.runtimes.scoring import Asked, new, old, scoring

IMAGE = f"registry.example/plant/sum:1@sha256:{'a' * 64}"
ARRAYS = {"a": np.array([1.0, 2.5]), "b": np.array([3, 4])}
Answer = Callable[[Asked], None]


def step(name: str = "sum", **output: str) -> StepSpec:
    return StepSpec(
        name=name, model=f"models/{name}/image.txt", framework="mlflow-image", runtime="container",
        input={"a": "float64", "b": "int64"}, output=output or {"total": "float64"}, image=IMAGE,
    )  # fmt: skip


def test_both_dialects_are_spoken_and_the_one_that_is_answered_is_kept() -> None:
    for answer, tried in ((new, 1), (old, 3)):
        with scoring(answer) as (url, log):
            runtime = ContainerRuntime(step(), url)
            for _ in range(2):
                assert runtime.infer(ARRAYS, 2)["total"].tolist() == [4.0, 6.5]
            assert len(log) == tried + 1
            runtime.close()


def test_a_model_with_a_tensor_signature_is_asked_with_inputs() -> None:
    def tensors(asked: Asked) -> None:
        if "inputs" not in asked.said:
            asked.give({"message": "expected tensors"}, 400)
            return
        asked.give({"predictions": [[sum(row)] for row in asked.said["inputs"]]})

    spec = StepSpec(
        name="t", model="models/t/image.txt", framework="mlflow-image", runtime="container",
        input={"x": "list<float32>[2]"}, output={"y": "list<float32>[1]"}, image=IMAGE,
    )  # fmt: skip
    with scoring(tensors) as (url, log):
        found = ContainerRuntime(spec, url).infer({"x": np.ones((2, 2), np.float32)}, 2)
    assert found["y"].tolist() == [[2.0], [2.0]] and log[-1][1] == {"inputs": [[1.0, 1.0], [1.0, 1.0]]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"predictions": [{"total": 4.0, "label": "x"}, {"total": 6.5, "label": "y"}]}, {"label": ["x", "y"]}),
        ([{"total": 4.0, "label": "x"}, {"total": 6.5, "label": "y"}], {"total": [4.0, 6.5]}),
        ({"predictions": {"total": [4, 6.5], "label": ["x", "y"]}}, {"total": [4.0, 6.5]}),
    ],
)
def test_named_outputs_are_taken_by_name(said: Any, expected: dict[str, list[Any]]) -> None:
    with scoring(lambda asked: asked.give(said)) as (url, _):
        found = ContainerRuntime(step(total="float64", label="string"), url).infer(ARRAYS, 2)
    assert {name: found[name].tolist() for name in expected} == expected


def test_an_output_without_a_name_is_the_schemas_only_field() -> None:
    for said in ({"predictions": [4.0, 6.5]}, [4.0, 6.5]):
        with scoring(lambda asked, said=said: asked.give(said)) as (url, _):
            assert ContainerRuntime(step(), url).infer(ARRAYS, 2)["total"].tolist() == [4.0, 6.5]


def drip(asked: Asked) -> None:
    asked.send_response(200)
    asked.end_headers()
    asked.close_connection = True
    with suppress(OSError):
        while True:
            asked.wfile.write(b" ")
            time.sleep(0.02)


def drip_on(asked: Asked, begin: bytes) -> None:
    """Bytes that are no whole answer, without end."""
    asked.close_connection = True
    asked.wfile.write(begin)
    with suppress(OSError):
        while True:
            asked.wfile.write(b"x")
            time.sleep(0.02)


def drip_headers(asked: Asked) -> None:
    drip_on(asked, b"HTTP/1.1 200 OK\r\nX: ")


def drip_refusal(asked: Asked) -> None:
    drip_on(asked, b"HTTP/1.1 400 Bad\r\n\r\n")


def drip_length(asked: Asked) -> None:
    drip_on(asked, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")


def flood(asked: Asked) -> None:
    asked.send_response(200)
    asked.end_headers()
    asked.close_connection = True
    with suppress(OSError):
        while True:
            asked.wfile.write(b" " * (1 << 16))


def cut(asked: Asked) -> None:
    asked.give(b'{"predictions": [', length=900)
    asked.close_connection = True


FAULTS: dict[str, tuple[Answer, str]] = {
    "a page": (lambda asked: asked.give(b"<html>"), "answers with what is not JSON"),
    "deep": (lambda asked: asked.give(b"[" * 100_000), "answers with what is not JSON"),
    "a number": (lambda asked: asked.give(7), "answers with no predictions"),
    "mixed rows": (lambda asked: asked.give([{"total": 1}, {"other": 2}]), "answers with no predictions"),
    "another name": (lambda asked: asked.give([{"x": 1}, {"x": 2}]), "without field 'total': it gives 'x'"),
    "too few": (lambda asked: asked.give({"predictions": [1.0]}), "was asked 2 rows and answers 1"),
    "text": (lambda asked: asked.give(["a", "b"]), "does not fit its schema"),
    "nulls": (lambda asked: asked.give([None, None]), "does not fit its schema"),
    "refuses": (lambda asked: asked.give({"message": "no\nsuch column"}, 400), r"\(400: no such column\)"),
    "broken": (lambda asked: asked.give({"message": "oops"}, 500), r"refuses rows that fit its schema \(500: oops\)"),
    "busy": (lambda asked: asked.give({"message": "later"}, 429), r"\(429: later\)"),
    "elsewhere": (lambda asked: asked.give(b"", 302), r"\(302"),
    "cut": (cut, "broke the connection off"),
    "drip": (drip, "took too long to answer"),
    "drip of headers": (drip_headers, "took too long to answer"),
    "drip of a refusal": (drip_refusal, "took too long to answer"),
    "drip of a chunk's length": (drip_length, "took too long to answer"),
    "silent": (lambda asked: asked.rfile.read(1), "took too long to answer"),
    "flood": (flood, "answers with more than"),
}


AWAY = ("broken", "busy", "cut", "silent", "drip", "drip of headers", "drip of a refusal", "drip of a chunk's length")


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_with_a_container_is_unreachable_in_one_line(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "LARGEST_ANSWER", 1 << 20)
    answer, words = FAULTS[fault]
    with scoring(answer) as (url, _):
        runtime = ContainerRuntime(step(), url, answer_s=0.15 if "too long" in words else 30.0)
        with pytest.raises(Unreachable, match=words) as caught:
            runtime.infer(ARRAYS, 2)
        runtime.close()
    assert str(caught.value).startswith("the container of step 'sum' ") and "\n" not in str(caught.value)
    assert caught.value.retry_after_s
    assert type(caught.value) is (Unreachable if fault in AWAY else RowsRefused if fault == "refuses" else Misfits)


def test_of_a_silent_container_few_requests_wait_and_others_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container, "_TURN_S", 0.05)
    wakes = threading.Event()

    def sleepy(asked: Asked) -> None:
        assert wakes.wait(60)
        new(asked)

    with scoring(sleepy) as (url, log), ThreadPoolExecutor() as pool:
        runtime = ContainerRuntime(step(), url)
        waiting = [pool.submit(runtime.infer, ARRAYS, 2) for _ in range(CONTAINER_REQUESTS)]
        until(lambda: len(log) == CONTAINER_REQUESTS, "all are asked")
        with pytest.raises(Unreachable, match="has not answered 4 requests yet"):
            runtime.infer(ARRAYS, 2)
        monkeypatch.setattr(container, "_TURN_S", 3600.0)
        with pytest.raises(Unreachable, match="has not answered 4 requests yet"):  # without another wait
            runtime.infer(ARRAYS, 2)
        wakes.set()
        assert [each.result()["total"].tolist() for each in waiting] == [[4.0, 6.5]] * CONTAINER_REQUESTS
        assert runtime.infer(ARRAYS, 2)["total"].tolist() == [4.0, 6.5]
    assert len(log) == CONTAINER_REQUESTS + 1


def test_many_requests_of_a_container_that_answers_take_turns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(container, "_TURN_S", 60.0)
    with scoring(new) as (url, _), ThreadPoolExecutor(12) as pool:
        runtime = ContainerRuntime(step(), url)
        found = list(pool.map(lambda _: runtime.infer(ARRAYS, 2)["total"].tolist(), range(48)))
        runtime.close()
    assert found == [[4.0, 6.5]] * 48
    assert "pool is full" not in caplog.text


def test_a_container_may_take_in_a_large_request_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for connecting is not that for sending."""
    monkeypatch.setattr(container, "_CONNECT_S", 0.03)
    spec = StepSpec(
        name="t", model="models/t/image.txt", framework="mlflow-image", runtime="container",
        input={"text": "string"}, output={"y": "int64"}, image=IMAGE,
    )  # fmt: skip

    def lengths(asked: Asked) -> None:
        asked.give([len(row["text"]) for row in asked.said["dataframe_records"]])

    size = 16 << 20  # more than the kernel takes for a server that does not read
    with scoring(lengths, before=lambda: time.sleep(0.1)) as (url, _):
        found = ContainerRuntime(spec, url).infer({"text": np.array(["x" * size], object)}, 1)
    assert found["y"].tolist() == [size]


def test_a_container_that_is_away_or_has_no_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with scoring(new) as (url, _):
        pass
    with pytest.raises(Unreachable, match=r"does not answer: is it running"):
        ContainerRuntime(step(), url).infer(ARRAYS, 2)
    monkeypatch.delenv(address_variable("my-sum"), raising=False)
    with pytest.raises(Unreachable, match="has no address: set EDGEPACK_STEP_MY_SUM_URL"):
        ContainerRuntime.load(Path("unused"), step("my-sum")).infer(ARRAYS, 2)
    monkeypatch.setenv(address_variable("my-sum"), "http://[")
    with pytest.raises(Unreachable, match="has an address that is no URL"):
        ContainerRuntime.load(Path("unused"), step("my-sum")).infer(ARRAYS, 2)


def test_a_container_that_comes_back_is_asked_again() -> None:
    faulty = [True]
    with scoring(lambda asked: asked.give({}, 500) if faulty else new(asked)) as (url, _):
        runtime = ContainerRuntime(step(), url)
        with pytest.raises(Unreachable):
            runtime.infer(ARRAYS, 2)
        faulty.clear()
        assert runtime.infer(ARRAYS, 2)["total"].tolist() == [4.0, 6.5]


def test_an_image_travels_in_the_spec_by_digest_alone() -> None:
    spec = PipelineSpec("p", [step()])
    assert PipelineSpec.decode(spec.encode()) == spec
    plain = StepSpec("p", "models/p/p.onnx", "onnx", "onnx", {"a": "float64"}, {"b": "float64"})
    assert b"image" not in PipelineSpec("p", [plain]).encode()
    for image in ("a:1", "a@sha256:12", f"a b@sha256:{'a' * 64}", f"../a@sha256:{'a' * 64}", f"-a@sha256:{'a' * 64}"):
        with pytest.raises(BadInput, match="not named by digest"):
            PipelineSpec.decode(spec.encode().replace(IMAGE.encode(), image.encode()))
