from __future__ import annotations

import numpy as np
import pytest

from columns.columns import Columns
from edgepack.errors import BadInput, RuntimeFailed
from runtimes import pipeline
from runtimes.pipeline import LoadedPipeline
from tests.runtimes.models import bundle_folder, identity, linear, step


def rows_of(pipeline, *rows):
    return Columns.of(pipeline.input, {"x": np.array(rows, dtype=np.float32)})


def test_steps_run_in_sequence_and_each_has_its_time(tmp_path):
    steps = [
        step("one"),
        step("two", input={"y": "list<float32>[1]"}, tensor_fields=["y"], output={"y": "list<float32>[1]"}),
    ]
    folder = bundle_folder(tmp_path, {"one.onnx": linear(), "two.onnx": linear(1, 10.0)}, steps)
    pipeline = LoadedPipeline.open(folder)
    outcome = pipeline.infer(rows_of(pipeline, [1, 1, 1], [0, 0, 1]))
    assert outcome.outputs.arrays["y"].tolist() == [[60.0], [20.0]]
    assert len(outcome.elapsed_ns) == 2
    assert all(ns > 0 for ns in outcome.elapsed_ns)


def test_validations_mark_single_rows(tmp_path):
    validations = {"high": "out.y[0] > 5", "odd": "in.x[0] == 1"}
    folder = bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()], validations=validations)
    pipeline = LoadedPipeline.open(folder)
    outcome = pipeline.infer(rows_of(pipeline, [1, 1, 1], [0, 0, 1]))
    assert {name: array.tolist() for name, array in outcome.anomalies.items()} == {
        "high": [True, False],
        "odd": [True, False],
    }


def test_steps_that_do_not_fit_together_are_refused_with_both_sides(tmp_path):
    steps = [step("one"), step("two", input={"x": "list<float32>[1]"})]
    folder = bundle_folder(tmp_path, {"one.onnx": linear(), "two.onnx": linear(1)}, steps)
    with pytest.raises(BadInput, match=r"step 1 'one' gives 'y' list<float32>\[1\], step 2 'two' takes 'x'"):
        LoadedPipeline.open(folder)


def test_a_runtime_that_this_version_does_not_know_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(pipeline._ENGINES, "tflite")
    folder = bundle_folder(tmp_path, {"m.tflite": b"x"}, [step(model="m.tflite", runtime="tflite")])
    with pytest.raises(RuntimeFailed, match="needs runtime 'tflite': this version runs onnx, container, python"):
        LoadedPipeline.open(folder)


def test_a_single_row_pipeline_says_so(tmp_path):
    folder = bundle_folder(
        tmp_path, {"linear.onnx": identity("float32", [1, 3])}, [step(batch="single", output={"y": "list<float32>[3]"})]
    )
    assert LoadedPipeline.open(folder).single_row
