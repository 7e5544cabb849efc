"""The gate: only a model that answers like an original that answers like itself passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

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
    assert verdict.attempt.strategy == "python"
    assert "it answers differently" in str(verdict.reason)
    assert "worst_input" in verdict.trail[0]


def test_an_original_that_differs_from_itself_is_not_comparable_and_goes_to_python(tmp_path: Path) -> None:
    verdict = choose(attempts(tmp_path, tolerance_of_itself=0.5), 1e-5, 60)
    assert verdict.attempt.strategy == "python"
    assert NOT_COMPARABLE in str(verdict.reason)
