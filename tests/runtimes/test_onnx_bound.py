"""A model bound to buffers: the same bytes as by `infer_tensors`, and nothing but the bound shapes."""

from __future__ import annotations

import numpy as np
import pytest

from edgepack.errors import RuntimeFailed
from runtimes.onnx import OnnxRuntime
from runtimes.onnx_bound import BoundRun
from tests.runtimes.models import linear, step


@pytest.fixture
def runtime(tmp_path):
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear(factor=2.0))
    runtime = OnnxRuntime.load(path, step(sha256=""))
    yield runtime
    runtime.close()


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 5])
def test_a_bound_run_gives_what_the_model_gives(runtime, count):
    bound = runtime.bind({"x": rows(count)})
    for seed in range(5):
        given = rows(count, seed)
        assert bound([given.tobytes()]) == [runtime.infer_tensors({"x": given})["y"].tobytes()]


def test_a_run_keeps_no_answer_of_the_one_before(runtime):
    bound = runtime.bind({"x": rows(1)})
    first = bound([rows(1, 1).tobytes()])
    second = bound([rows(1, 2).tobytes()])
    assert first == [runtime.infer_tensors({"x": rows(1, 1)})["y"].tobytes()]
    assert first != second


def test_a_model_that_gives_another_shape_than_bound_is_a_failure(runtime):
    bound = BoundRun(runtime._session, {"x": rows(2)}, {"y": np.zeros((1, 1), np.float32)})
    with pytest.raises(RuntimeFailed, match="buffers"):
        bound([rows(2).tobytes()])


def test_text_truth_values_and_nothing_at_all_are_not_bound():
    assert not BoundRun.suits({"x": np.array(["a"], object)})
    assert not BoundRun.suits({"x": np.array([True])})
    assert not BoundRun.suits({"x": np.zeros((0, 3), np.float32)})
