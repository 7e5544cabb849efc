"""The gate: only a model that answers like an original that answers like itself passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from bundle.golden import Tolerance
from columns.columns import Columns
from columns.schema import Schema
from packager.conversion import Attempt
from packager.gate import NOT_COMPARABLE, choose
from tests import make

ROWS = Columns.of(
    Schema.parse({"tensor": "list<float32>[3]"}), {"tensor": np.arange(12, dtype=np.float32).reshape(4, 3)}
)
OUTPUT = Schema.parse({"y": "list<float32>[1]"})


def answers_of(model: Path) -> Columns:
    session = onnxruntime.InferenceSession(str(model))
    return Columns.of(OUTPUT, {"y": session.run(None, {session.get_inputs()[0].name: ROWS["tensor"]})[0].reshape(4, 1)})


def shifted(answers: Columns, by: float) -> Columns:
    return Columns.of(OUTPUT, {"y": answers["y"] + np.float32(by)})


def attempts(folder: Path, tolerance_of_itself: float = 0.0, converted_off_by: float = 0.0) -> list[Attempt]:
    """A native attempt with a real model, and the fallback to python."""
    model = make.save(make.linear(), folder / "model.onnx")
    truth = answers_of(model)
    original = shifted(truth, converted_off_by)
    native = Attempt(
        strategy="float32",
        input=ROWS.schema,
        output=OUTPUT,
        methods={"y": "predict"},
        rows=ROWS,
        answers=original,
        again=shifted(original, tolerance_of_itself),
        model=model,
        reason=None,
    )
    return [native, replace(native, strategy="python", model=None)]


def test_a_model_that_answers_like_the_original_is_native(tmp_path: Path) -> None:
    verdict = choose(attempts(tmp_path), 1e-5, 60)
    assert (verdict.attempt.strategy, verdict.reason) == ("float32", None)
    assert verdict.comparison.rows == 4


def test_a_model_that_answers_differently_goes_to_python_with_the_worst_row(tmp_path: Path) -> None:
    verdict = choose(attempts(tmp_path, converted_off_by=0.5), 1e-5, 60)
    assert (verdict.attempt.strategy, verdict.lasts) == ("python", True)
    assert "it answers differently" in str(verdict.reason)
    assert "worst_input" in verdict.trail[0]


def test_an_attempt_that_did_not_answer_in_time_says_nothing_that_lasts(tmp_path: Path) -> None:
    verdict = choose(attempts(tmp_path), 1e-5, 0.001)
    assert (verdict.attempt.strategy, verdict.lasts) == ("python", False)
    assert "it does not run: pipeline 'gate' did not answer its trial within 0.001 s" in str(verdict.reason)


def test_an_original_that_differs_from_itself_is_not_comparable_and_goes_to_python(tmp_path: Path) -> None:
    verdict = choose(attempts(tmp_path, tolerance_of_itself=0.5), 1e-5, 60)
    assert verdict.attempt.strategy == "python"
    assert NOT_COMPARABLE in str(verdict.reason)


def original_of(kind: str) -> Columns:
    """Answers of the kinds that frameworks give: numbers, labels that are strings or integers, and lists of them."""
    columns = {
        "y": np.array([0.5, np.nan, np.inf, 3.0]),
        "label": np.array(["a", "b", "unseen", ""], dtype=object),
        "code": np.array([1, 2, 3, 4]),
        "several": np.array([[0.25, 0.75], [0.5, 0.5], [np.nan, 1.0], [0.0, 1.0]]),
    }
    types = {"y": "float64", "label": "string", "code": "int64", "several": "list<float64>[2]"}
    return Columns.of(Schema.parse({kind: types[kind]}), {kind: columns[kind]})


def changed(answers: Columns, kind: str) -> Columns:
    """Another run's answers: the last row differs."""
    column = np.array(answers[kind], copy=True)
    column[-1] = {"y": 3.5, "label": "a", "code": 5, "several": [1.0, 0.0]}[kind]
    return Columns.of(answers.schema, {kind: column})


@pytest.mark.parametrize("kind", ["y", "label", "code", "several"])
def test_an_original_is_compared_with_itself_in_every_type(kind: str, tmp_path: Path) -> None:
    """NaN is NaN's equal, strings and integers are labels; what differs in one row is not comparable."""
    native, python = attempts(tmp_path)
    answers = original_of(kind)
    steady = [replace(python, output=answers.schema, answers=answers, again=answers)]
    assert choose(steady, 1e-5, 60).comparison.passed
    moody = replace(native, output=answers.schema, answers=answers, again=changed(answers, kind))
    verdict = choose([moody, replace(python, output=answers.schema, answers=answers, again=moody.again)], 1e-5, 60)
    assert verdict.attempt.strategy == "python" and NOT_COMPARABLE in str(verdict.reason)
    assert "row 3" in str(verdict.reason) and not verdict.comparison.passed


def test_an_attempt_that_comes_near_to_the_tolerance_gives_way_to_a_wider_one(tmp_path: Path) -> None:
    """The rows are a sample: others may go beyond."""
    near, python = attempts(tmp_path, converted_off_by=4e-6)
    clear = replace(attempts(tmp_path)[0], strategy="double")
    verdict = choose([near, clear, python], 1e-5, 60)
    assert verdict.attempt.strategy == "double" and [each["passed"] for each in verdict.trail] == [True, True]


def test_an_attempt_that_comes_near_is_taken_where_no_wider_one_passes(tmp_path: Path) -> None:
    near, python = attempts(tmp_path, converted_off_by=4e-6)
    wide = replace(attempts(tmp_path, converted_off_by=0.5)[0], strategy="double")
    verdict = choose([near, wide, python], 1e-5, 60)
    assert (verdict.attempt.strategy, verdict.reason) == ("float32", None)
    assert [each["passed"] for each in verdict.trail] == [True, False]


def test_a_model_that_answers_one_row_otherwise_than_many_is_not_taken(tmp_path: Path) -> None:
    """Batch 1 and batch N are both asked: this one adds the number of rows to its answer."""
    nodes = [
        helper.make_node("Shape", ["tensor"], ["rows"], end=1),
        helper.make_node("Cast", ["rows"], ["count"], to=1),
        helper.make_node("ReduceSum", ["tensor", "axis"], ["sums"], keepdims=1),
        helper.make_node("Add", ["sums", "count"], ["y"]),
    ]
    shapes = {"tensor": ("float32", ["N", 3])}, {"y": ("float32", ["N", 1])}
    made = make.onnx_model(nodes, *shapes, {"axis": np.array([1], dtype=np.int64)})
    model = make.save(made, tmp_path / "batch.onnx")
    answers = answers_of(model)
    native, python = attempts(tmp_path)
    verdict = choose([replace(native, model=model, answers=answers, again=answers), python], 1e-5, 60)
    assert verdict.attempt.strategy == "python" and "it answers differently: row 0" in str(verdict.reason)


@pytest.mark.parametrize("tolerance, taken", [({"y": 0.9}, "float32"), ({"other": 0.9}, "python"), (0.9, "float32")])
def test_a_tolerance_is_that_of_the_field_that_it_names(tolerance: Tolerance, taken: str, tmp_path: Path) -> None:
    assert choose(attempts(tmp_path, converted_off_by=0.5), tolerance, 60).attempt.strategy == taken
