"""TFLite models, made here, against numpy; in whichever engine is installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch.providers import CPU
from bundle.pipeline import StepSpec
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.cpus import usable_cpus, using_threads
from runtimes.protocol import TensorField
from runtimes.tflite import TfliteRuntime
from runtimes.tflite_engine import Engine
from tests import tflite_models

Load = Callable[..., TfliteRuntime]
ENGINE = Engine.here().name.split()[0]  # tests/runtimes/test_tflite_engines.py runs this file in the other one too
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
FLOATS = {"input": {"x": "list<float32>[4]"}, "output": {"y": "list<float32>[3]"}}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def make(model: bytes, **changes: Any) -> TfliteRuntime:
        path = tmp_path / "model.tflite"
        path.write_bytes(model)
        said: dict[str, Any] = {"name": "m", "model": "m.tflite", "framework": "tflite", "runtime": "tflite"}
        return TfliteRuntime.load(path, StepSpec(**{**said, **FLOATS, **changes}))

    return make


def rows(count: int, width: int = 4, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 7, 500])
def test_all_rows_run_at_once_when_the_first_axis_is_free(load: Load, count: int) -> None:
    x = rows(count)
    answer = load(tflite_models.dense(WEIGHTS)).infer({"x": x}, count)["y"]
    assert answer.dtype == np.float32 and answer.shape == (count, 3)
    np.testing.assert_allclose(answer, x @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_rows_run_one_by_one_when_the_first_axis_is_one(load: Load) -> None:
    x = rows(3)
    np.testing.assert_allclose(
        load(tflite_models.dense(WEIGHTS, rows=1)).infer({"x": x}, 3)["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-6
    )


def test_a_larger_fixed_first_axis_makes_the_whole_tensor_one_row(load: Load) -> None:
    whole = {"input": {"x": "list<list<float32>[4]>[2]"}, "output": {"y": "list<list<float32>[3]>[2]"}}
    x = rows(6).reshape(3, 2, 4)
    answer = load(tflite_models.dense(WEIGHTS, rows=2), **whole).infer({"x": x}, 3)["y"]
    np.testing.assert_allclose(answer, x @ WEIGHTS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first", [tflite_models.FREE, 1])
def test_no_rows_are_answered_with_none(load: Load, first: int) -> None:
    answer = load(tflite_models.dense(WEIGHTS, rows=first)).infer({"x": rows(0)}, 0)["y"]
    assert answer.shape == (0, 3) and answer.dtype == np.float32


def test_however_many_sizes_requests_have_few_interpreters_are_kept(load: Load) -> None:
    runtime = load(tflite_models.dense(WEIGHTS))
    for count in [*range(1, 40), 7, 256, 1]:
        x = rows(count, seed=count)
        np.testing.assert_allclose(runtime.infer({"x": x}, count)["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-6)
        assert len(runtime.interpreters.kept) <= max(4, usable_cpus())
    kept = runtime.interpreters.kept
    assert set(kept) >= {((7, 4),), ((256, 4),), ((1, 4),)} and len(kept) == len(set(kept))


def test_sizes_that_come_again_find_their_own_interpreter(load: Load) -> None:
    runtime = load(tflite_models.dense(WEIGHTS))
    for count in (1, 7, 256) * 3:
        runtime.infer({"x": rows(count)}, count)
        assert runtime.interpreters.kept[-1] == ((count, 4),)
    assert sorted(runtime.interpreters.kept) == [((1, 4),), ((7, 4),), ((256, 4),)]


def test_a_large_request_runs_in_pieces_whose_layers_stay_small(load: Load) -> None:
    weights = np.random.default_rng(2).normal(size=(2048, 1024)).astype(np.float32) / 64
    fields = {"input": {"x": "list<float32>[2048]"}, "output": {"y": "list<float32>[1024]"}}
    runtime = load(tflite_models.dense(weights), **fields)
    assert runtime.rows_at_once == (4 << 20) // (4 * (2048 + 1024))
    x = rows(2 * runtime.rows_at_once + 5, 2048)
    np.testing.assert_allclose(runtime.infer({"x": x}, len(x))["y"], x @ weights, rtol=1e-3, atol=1e-4)
    assert max(shape[0] for (shape,) in runtime.interpreters.kept) == runtime.rows_at_once


def test_pictures_whose_layers_are_large_run_a_few_at_once_and_answer_as_together(load: Load) -> None:
    pictures = {"input": {"x": "list<list<list<float32>[3]>[32]>[32]"}}
    fields = {"output": {"y": "list<list<list<float32>[32]>[32]>[32]"}}
    runtime = load(tflite_models.convolutions(), **pictures, **fields)
    assert runtime.rows_at_once == (4 << 20) // (4 * 32 * 32 * (3 + 6 * 32)) == 5
    x = np.random.default_rng(0).normal(size=(11, 32, 32, 3)).astype(np.float32)
    together = runtime.infer_tensors({"x": x})["y"]
    np.testing.assert_allclose(runtime.infer({"x": x}, 11)["y"], together, rtol=1e-4, atol=1e-4)
    assert sorted(shape[0] for (shape,) in runtime.interpreters.kept) == [1, 5]


def test_the_engines_own_tensors_run_at_once_however_large_and_leave_nothing_behind(load: Load) -> None:
    weights = np.ones((2048, 1024), np.float32)
    fields = {"input": {"x": "list<float32>[2048]"}, "output": {"y": "list<float32>[1024]"}}
    runtime = load(tflite_models.dense(weights), **fields)
    x = np.full((runtime.rows_at_once + 1, 2048), 0.5, np.float32)
    assert runtime.infer_tensors({"x": x})["y"].shape == (len(x), 1024)
    assert ((len(x), 2048),) not in runtime.interpreters.kept


def test_the_engine_and_its_threads_are_told(load: Load) -> None:
    with using_threads(1):
        one = load(tflite_models.dense(WEIGHTS)).providers
    assert (one.threads, one.used, one.skipped) == (1, (CPU,), {})
    assert re.fullmatch(rf"{ENGINE} [0-9.]+, XNNPACK", one.engine)
    assert load(tflite_models.dense(WEIGHTS)).providers.threads == usable_cpus()


def test_sizes_of_requests_may_change_from_one_to_the_next(load: Load) -> None:
    runtime = load(tflite_models.dense(WEIGHTS))
    for count in (1, 9, 1, 3, 9, 1):
        x = rows(count, seed=count)
        np.testing.assert_allclose(runtime.infer({"x": x}, count)["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_requests_at_the_same_time_do_not_meet(load: Load) -> None:
    runtime = load(tflite_models.dense(WEIGHTS))

    def ask(number: int) -> bool:
        x = rows(1 + number % 4, seed=number)
        return bool(np.allclose(runtime.infer({"x": x}, len(x))["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-6))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


def test_inputs_and_outputs_go_by_the_names_of_the_signature(load: Load) -> None:
    fields = {name: "list<float32>[3]" for name in ("a", "b")}
    runtime = load(
        tflite_models.two_ways(), input=fields, output={name: "list<float32>[3]" for name in ("product", "total")}
    )
    a, b = rows(4, 3, 1), rows(4, 3, 2)
    answer = runtime.infer({"a": a, "b": b}, 4)
    np.testing.assert_array_equal(answer["total"], a + b)
    np.testing.assert_array_equal(answer["product"], a * b)


def test_tensor_fields_rename_the_inputs(load: Load) -> None:
    runtime = load(
        tflite_models.two_ways(),
        input={name: "list<float32>[3]" for name in ("left", "right")},
        output={name: "list<float32>[3]" for name in ("total", "product")},
        tensor_fields=["left", "right"],
    )
    answer = runtime.infer({"left": rows(1, 3), "right": np.zeros((1, 3), np.float32)}, 1)
    np.testing.assert_array_equal(answer["total"], rows(1, 3))


X_SCALE, W_SCALE, Y_SCALE = (0.5, 3), 0.25, (2.0, -1)
LEVELS = np.arange(12).reshape(4, 3) - 6


def quantized_reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """LiteRT's own arithmetic for int8, in whole numbers (quantization spec: round half away from zero)."""
    sums = (x.astype(np.int64) - X_SCALE[1]) @ LEVELS
    scaled = sums * X_SCALE[0] * W_SCALE / Y_SCALE[0]
    return np.clip(np.sign(scaled) * np.floor(np.abs(scaled) + 0.5) + Y_SCALE[1], -128, 127).astype(np.int8)


def test_a_quantized_model_takes_and_gives_its_integers(load: Load) -> None:
    model = tflite_models.quantized(LEVELS, X_SCALE, W_SCALE, Y_SCALE)
    runtime = load(model, input={"x": "list<int8>[4]"}, output={"y": "list<int8>[3]"})
    x = np.random.default_rng(0).integers(-128, 127, size=(50, 4), dtype=np.int8)
    answer = runtime.infer({"x": x}, 50)["y"]
    assert answer.dtype == np.int8
    assert np.abs(answer.astype(int) - quantized_reference(x).astype(int)).max() <= 1


def test_a_quantized_model_takes_and_gives_numbers_where_the_schema_says_so(load: Load) -> None:
    model = tflite_models.quantized(LEVELS, X_SCALE, W_SCALE, Y_SCALE)
    integers = load(model, input={"x": "list<int8>[4]"}, output={"y": "list<int8>[3]"})
    numbers = load(model)
    x = (np.arange(20).reshape(5, 4) - 10).astype(np.int8)
    as_numbers = (x.astype(np.float32) - X_SCALE[1]) * np.float32(X_SCALE[0])
    expected = (integers.infer({"x": x}, 5)["y"].astype(np.float32) - Y_SCALE[1]) * np.float32(Y_SCALE[0])
    np.testing.assert_array_equal(numbers.infer({"x": as_numbers}, 5)["y"], expected)


def test_numbers_outside_the_scale_meet_its_ends(load: Load) -> None:
    runtime = load(tflite_models.quantized(LEVELS, X_SCALE, W_SCALE, Y_SCALE))
    far = np.array([[1e30, -1e30, np.inf, np.nan]], np.float32)
    near = np.array([[62.0, -65.5, 62.0, 0.0]], np.float32)
    np.testing.assert_array_equal(runtime.infer({"x": far}, 1)["y"], runtime.infer({"x": near}, 1)["y"])


def test_its_tensors_are_told_and_taken_as_they_are(load: Load) -> None:
    runtime = load(tflite_models.dense(WEIGHTS))
    assert runtime.tensor_inputs == (TensorField("x", "FP32", (None, 4)),)
    assert runtime.tensor_outputs == (TensorField("y", "FP32", (None, 3)),)
    np.testing.assert_allclose(runtime.infer_tensors({"x": rows(5)})["y"], rows(5) @ WEIGHTS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5), (4,), (1, 1, 4), ()])
def test_a_tensor_of_another_shape_is_refused_by_its_field(load: Load, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"field 'x' has shape .*, the model takes \[any, 4\]"):
        load(tflite_models.dense(WEIGHTS)).infer_tensors({"x": np.zeros(shape, np.float32)})


def test_after_a_refused_request_the_next_right_one_is_answered(load: Load) -> None:
    runtime = load(tflite_models.dense(WEIGHTS))
    for _ in range(3):
        with pytest.raises(BadInput):
            runtime.infer_tensors({"x": np.zeros((1, 9), np.float32)})
    np.testing.assert_allclose(runtime.infer({"x": rows(2)}, 2)["y"], rows(2) @ WEIGHTS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [b"", bytes(100), tflite_models.dense(WEIGHTS)[:200], tflite_models.flex()])
def test_a_file_that_the_engine_refuses_is_one_line(load: Load, model: bytes) -> None:
    with pytest.raises(RuntimeFailed, match=rf"model 'm' does not load in {ENGINE} [0-9.]+: ") as raised:
        load(model)
    assert "\n" not in str(raised.value)


def test_a_model_of_newer_operators_runs_or_is_refused_by_the_one_that_is_too_new(load: Load) -> None:
    model = tflite_models.dense(WEIGHTS, version=12)
    if ENGINE == "LiteRT":
        np.testing.assert_allclose(load(model).infer({"x": rows(3)}, 3)["y"], rows(3) @ WEIGHTS, rtol=1e-5, atol=1e-6)
        model = tflite_models.dense(WEIGHTS, version=99)
    version = 99 if ENGINE == "LiteRT" else 12
    said = f"does not load in {ENGINE} [0-9.]+: it needs FULLY_CONNECTED version {version}, which this release does not"
    with pytest.raises(RuntimeFailed, match=said) as raised:
        load(model)
    assert "\n" not in str(raised.value)


def test_a_bundle_that_names_other_fields_is_refused_at_loading(load: Load) -> None:
    with pytest.raises(RuntimeFailed, match="has the inputs x: the bundle says"):
        load(tflite_models.dense(WEIGHTS), input={"z": "list<float32>[4]"})
    with pytest.raises(RuntimeFailed, match="do not fit it"):
        load(tflite_models.dense(WEIGHTS), input={"x": "float32"}, output={"y": "list<list<list<float32>>>"})


def test_without_an_engine_the_error_says_what_to_install(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=r"pip install 'edgepack\[tflite\]'"):
        load(tflite_models.dense(WEIGHTS))
