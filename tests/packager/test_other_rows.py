"""What is asked of a network beside its rows: each row alone, and rows of other lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from packager.convert.fields import Unsuited
from packager.convert.nets.other_rows import check_alone, refusal
from packager.convert.nets.tensors import TensorField
from tests import make

ROWS = {"x": np.random.RandomState(0).normal(size=(6, 8)).astype(np.float32)}
FREE = [TensorField("x", "float32", (-1,))]


def sums(rows: Any) -> list[Any]:
    return [rows["x"].sum(1)]


def model(folder: Path, *nodes: Any, **values: int) -> str:
    """Sums of rows; `nodes` stand before."""
    made = [*nodes, helper.make_node("ReduceSum", ["y" if nodes else "x", "axes"], ["s"], keepdims=0)]
    weights = {name: np.array([value], np.int64) for name, value in {**values, "axes": 1}.items()}
    sides = {"x": ("float32", ["N", "length"])}, {"s": ("float32", ["N"])}
    return str(make.save(make.onnx_model(made, *sides, weights), folder / "model.onnx"))


def test_a_model_that_answers_every_length_is_taken(tmp_path: Path) -> None:
    assert refusal(model(tmp_path), sums, ROWS, FREE) is None


def test_one_that_was_exported_for_a_length_is_not_and_the_way_out_is_said(tmp_path: Path) -> None:
    first = helper.make_node("Slice", ["x", "from", "to", "axes"], ["y"])
    found = refusal(model(tmp_path, first, **{"from": 0, "to": 8}), sums, ROWS, FREE)
    assert (
        found
        == "exported, it answers rows of length 11 differently; give its length in [steps.input] to run it natively"
    )


def test_one_that_does_not_run_for_another_length_is_not_taken(tmp_path: Path) -> None:
    eighth = helper.make_node("Gather", ["x", "at"], ["y"], axis=1)
    found = refusal(model(tmp_path, eighth, at=7), lambda rows: [rows["x"][:, 7:8].sum(1) * 1.0], ROWS, FREE)
    assert found is not None and "length 7" in found


def test_lengths_that_the_original_refuses_need_no_answer(tmp_path: Path) -> None:
    def picky(rows: Any) -> list[Any]:
        if rows["x"].shape[1] != 8:
            raise ValueError("eight")
        return sums(rows)

    first = helper.make_node("Slice", ["x", "from", "to", "axes"], ["y"])
    assert refusal(model(tmp_path, first, **{"from": 0, "to": 8}), picky, ROWS, FREE) is None


def test_without_a_free_length_nothing_is_asked() -> None:
    assert refusal("nowhere.onnx", sums, ROWS, [TensorField("x", "float32", (8,))]) is None


def test_a_row_that_depends_on_its_neighbours_is_refused() -> None:
    def centred(rows: Any) -> list[Any]:
        return [rows["x"] - rows["x"].mean(0, keepdims=True)]

    answers = centred(ROWS)
    with pytest.raises(Unsuited, match=r"depends on the rows beside it \(row 0 alone is answered otherwise\)"):
        check_alone(centred, ROWS, answers, answers)
    check_alone(sums, ROWS, sums(ROWS), sums(ROWS))


def test_an_original_that_differs_from_itself_is_left_to_the_gate() -> None:
    check_alone(sums, ROWS, sums(ROWS), [sums(ROWS)[0] + 1])
