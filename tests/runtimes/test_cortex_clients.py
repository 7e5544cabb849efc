"""What a Cortex predictor reaches its models by, with the ONNX Runtime that runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.shim.edgepack_worker.absent import Absent
from runtimes.shim.edgepack_worker.cortex_clients import Models, OnnxClient, PythonClient
from tests.runtimes.models import linear


def told(**versions: list[str]) -> dict[str, dict[str, dict[str, str]]]:
    return {name: {each: {"path": f"{name}/{each}"} for each in numbers} for name, numbers in versions.items()}


@pytest.fixture
def onnx(tmp_path: Path) -> OnnxClient:
    for version in ("2", "10"):
        (tmp_path / "line" / version).mkdir(parents=True)
        (tmp_path / "line" / version / "m.onnx").write_bytes(linear(factor=float(version)))
    return OnnxClient(Models(told(line=["2", "10"]), tmp_path, None))


@pytest.mark.parametrize("given", [[[1, 2, 3]], [1, 2, 3], np.array([[1.0, 2.0, 3.0]]), {"x": [[1, 2, 3]]}])
def test_an_input_takes_the_type_and_rank_of_the_models(onnx: OnnxClient, given: Any) -> None:
    (answer,) = onnx.predict(given)
    assert answer.tolist() == [[60.0]], "the tenth version is the latest, not the second"
    assert onnx.predict(given, "line", "2")[0].tolist() == [[12.0]]


def test_a_model_is_described_as_cortex_does(onnx: OnnxClient) -> None:
    found = onnx.get_model()
    assert found["input_signatures"] == onnx.input_signatures == {"x": {"shape": ["n", 3], "type": "float32"}}
    assert [each.name for each in found["signatures"]] == ["x"] and found["session"] is onnx.get_model("line")[
        "session"
    ]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (([[1]], "other"), "no model 'other' is served: there is 'line'"),
        (([[1]], "line", "3"), "model 'line' has no version '3': there is 2, 10"),
        (({"z": [1]},), "the model has the inputs x, not z"),
        ((["a", 1, 2],), "input 'x' is no array of float32: could not convert string to float: 'a'"),
        (([[1, 2, 3], [1]],), "input 'x' is no array of float32: setting an array element with a sequence"),
        (({"x": {"y": 1}},), "input 'x' is no array of float32: float"),
        (([1, 2],), r"input 'x' has shape \[2\], the model takes \['n', 3\]"),
    ],
)
def test_what_is_not_there_is_told(onnx: OnnxClient, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        onnx.predict(*arguments)


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    def load(place: Path) -> Path:
        if place.name == "2":
            raise KeyError("weights")
        return place

    models = Models(told(a=["1"], b=["1", "2"]), tmp_path, None)
    models.load = load
    with pytest.raises(RuntimeError, match=r"^model 'b', version 2, does not load: KeyError: 'weights'$"):
        models.warm()


def test_the_least_recently_used_leave_the_memory(tmp_path: Path) -> None:
    models, loaded = Models(told(a=["1"], b=["1"], c=["1", "2"]), tmp_path, 2), list[str]()
    client = PythonClient(models)
    models.load = lambda place: loaded.append(place.relative_to(tmp_path).as_posix()) or place
    models.warm()
    assert loaded == ["a/1", "b/1"], "as many as may stay"
    for name in ("a", "c", "a", "b"):
        client.get_model(name)
    assert loaded[2:] == ["c/2", "b/1"], "what is in memory is not loaded again"
    with pytest.raises(ValueError, match="several models are served, give model_name: there is 'a', 'b', 'c'"):
        client.get_model()


def test_a_model_that_is_not_on_the_disk_is_told_with_the_order_of_use(tmp_path: Path) -> None:
    models = Models({**told(a=["1"], b=["1", "2"]), "c": {"1": {"path": "c/1"}, "2": {}}}, tmp_path, 1)
    client, loaded = PythonClient(models), list[str]()
    models.load = lambda place: loaded.append(place.relative_to(tmp_path).as_posix())
    models.warm()
    for name in ("b", "a", "b"):
        client.get_model(name)
    with pytest.raises(Absent, match=r"^model 'c', version 2, is not on the disk: ") as missed:
        client.get_model("c")
    assert missed.value.said == {"model": "c", "version": "2", "used": [("a", "1"), ("b", "2")]}, "warming is no use"
    with pytest.raises(Absent), models.asked():
        try:
            client.get_model("c", "2")
        except BaseException:  # as a predictor may
            client.get_model("c", "1")
    with models.asked():
        client.get_model("c", "1")
    assert loaded[-1] == "c/1"
