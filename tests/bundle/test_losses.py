"""How far answers of quantized models are from those expected, and what passes on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.losses import compare_lossy, losses, told
from bundle.pipeline import PipelineSpec
from columns import Columns
from columns.json_value import JSON_VALUE
from columns.schema import Schema
from edgepack.errors import BadInput
from runtimes.trial import run_trial
from tests.make import open_folder, spec


def columns(type_: str, values: Any) -> Columns:
    schema = Schema.parse({"y": type_})
    tensor = schema["y"].type.tensor_dtype_and_shape()
    if tensor is None or None in tensor[1]:
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return Columns.of(schema, {"y": column})
    return Columns.of(schema, {"y": np.array(values, dtype=tensor[0])})


def loss(type_: str, expected: Any, actual: Any) -> Any:
    return losses(columns(type_, expected), columns(type_, actual))["y"]


def test_numbers_are_held_against_the_range_of_their_field() -> None:
    found = loss("list<float32>[2]", [[-30, 30], [0, 10]], [[-30, 30], [0.6, 10]])
    assert (found.worst_row, found.label_flips, found.argmax_flips) == (1, 0, 0)
    assert found.of_range == pytest.approx(0.01) and found.max_abs == found.max_rel == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("value", "share"), [(4.0, 0.25), (0.0, 1.0)], ids=["against their size", "against one where all are nothing"]
)
def test_a_field_whose_answers_are_all_equal_has_no_range(value: float, share: float) -> None:
    assert loss("float64", [value, value], [value, value + 1]).of_range == share


def test_labels_that_differ_are_counted_and_so_are_largest_numbers_elsewhere() -> None:
    assert loss("int64", [1, 2, 3], [1, 0, 3]).label_flips == 1
    assert loss("string", ["a", "b"], ["a", "c"]).worst_row == 1
    found = loss("list<float64>[3]", [[0.1, 0.5, 0.4], [1, 0, 0]], [[0.1, 0.4, 0.5], [1, 0, 0]])
    assert (found.label_flips, found.argmax_flips) == (0, 1)


@pytest.mark.parametrize("type_", ["float64", "list<float64>"])
def test_a_number_that_is_finite_on_one_side_alone_is_within_no_tolerance(type_: str) -> None:
    expected, actual = [1.0, np.nan, 3.0], [np.nan, np.nan, 3.0]
    found = loss(
        type_, *([[[each] for each in side] for side in (expected, actual)] if "<" in type_ else [expected, actual])
    )
    assert (found.not_finite, found.label_flips, found.worst_row, found.of_range) == (1, 0, 0, 0.0)
    assert not found.is_within(0.5, spare=1)
    assert told(found) == "row 0, 0 of the range, 1 of 3 numbers are finite on one side alone"


@pytest.mark.parametrize(
    ("type_", "expected", "actual"),
    [
        ("float32", [0.5], [np.nan]),
        ("float32", [0.5] * 100, [np.inf, *[0.5] * 99]),
        ("string", ["ok"], ["fire"]),
        ("string", ["ok", "bad"], ["ok", "ok"]),
        ("int64", [*range(24)], [1, *range(1, 24)]),
    ],
    ids=["no number", "infinite", "one row", "two", "fewer than a share"],
)
def test_on_a_device_no_answer_of_few_may_be_another(type_: str, expected: Any, actual: Any) -> None:
    assert not compare_lossy(columns(type_, expected), columns(type_, actual), 0.04).passed


@pytest.mark.parametrize(
    ("scores", "passes"),
    [([[1.0, 0.0], [0.53, 0.47]], True), ([[1.0, 0.0], [0.6, 0.4]], False), ([[0.5, 0.5], [1.0, 0.0]], False)],
    ids=["a draw", "none", "a draw in another row"],
)
@pytest.mark.parametrize("type_", ["list<float32>[2]", "list<float64>"])
def test_of_few_labels_one_may_flip_where_its_scores_draw(scores: Any, passes: bool, type_: str) -> None:
    schema = Schema.parse({"kind": "int64", "scores": type_})
    both = columns(type_, scores).arrays["y"]
    expected, actual = (Columns.of(schema, {"kind": np.array(kinds), "scores": both}) for kinds in ([0, 0], [0, 1]))
    found = compare_lossy(expected, actual, 0.04)
    assert found.passed is passes
    both_flip = Columns.of(schema, {"kind": np.array([1, 1]), "scores": both})
    assert not compare_lossy(expected, both_flip, 0.04).passed


def test_scores_in_a_json_value_may_draw_too() -> None:
    expected, actual = (
        Columns.of(JSON_VALUE, {"json": np.array([f'{{"scores": [0.5, 0.5, 0.0], "kind": {kind}}}'], dtype=object)})
        for kind in (0, 1)
    )
    assert compare_lossy(expected, actual, 0.04).passed


def test_lists_of_any_length_are_measured_by_what_is_in_them() -> None:
    found = loss("list<float64>", [[0.0, 4.0], [2.0]], [[0.0, 4.0], [2.2]])
    assert found.of_range == pytest.approx(0.05) and found.worst_row == 1
    assert loss("list<float64>", [[0.0, 4.0], [2.0]], [[0.0], [2.0]]).label_flips == 1


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20, unique=True),
    st.floats(0.001, 0.5),
    st.integers(0, 19),
)
def test_a_number_passes_exactly_while_it_is_within_its_share_of_the_range(
    numbers: list[float], tolerance: float, at: int
) -> None:
    expected, at = np.array(numbers), at % len(numbers)
    between = float(np.ptp(expected))
    for share, passes in ((0.99, True), (1.01, False)):
        moved = expected.copy()
        moved[at] += share * tolerance * between
        if abs(moved[at] - expected[at]) / between - share * tolerance > 0.001 * tolerance:
            continue  # so small a range among large numbers is lost in their last bits
        assert compare_lossy(columns("float64", expected), columns("float64", moved), tolerance).passed is passes


def test_on_a_device_a_share_of_labels_and_one_more_may_flip() -> None:
    expected = np.arange(100)
    for flips, passes in ((3, True), (4, False)):
        actual = expected.copy()
        actual[:flips] = -1
        found = compare_lossy(columns("int64", expected), columns("int64", actual), 0.02)
        assert (found.passed, found.label_flips) == (passes, flips)
        assert passes or f"{flips} of 100 labels flip (allowed 0.02)" in (found.reason or "")


@pytest.mark.parametrize(("seed", "passes"), [(0, True), (1, False)], ids=["the same", "another"])
def test_a_trial_holds_a_lossy_pipeline_to_its_share(seed: int, passes: bool, tmp_path: Path) -> None:
    golden_of = open_folder(tmp_path / "a", seed=0, loss=0.05) / "golden.json"
    folder = open_folder(tmp_path / "b", seed=seed, loss=0.05)
    (folder / "golden.json").chmod(0o644)
    (folder / "golden.json").write_bytes(golden_of.read_bytes())
    found = run_trial(folder)
    assert found.passed is passes
    assert passes or "of the range (allowed 0.05)" in (found.reason or "")


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5])
def test_a_loss_that_is_no_share_is_refused(value: float) -> None:
    with pytest.raises(BadInput, match="its loss is"):
        PipelineSpec.decode(spec(loss=value).encode())


def test_numbers_in_a_json_value_have_one_range_and_texts_in_it_are_labels() -> None:
    expected, actual = (
        Columns.of(JSON_VALUE, {"json": np.array([text], dtype=object)})
        for text in ('{"a": [0.0, 10.0], "b": "x"}', '{"b": "y", "a": [0.5, 10.0]}')
    )
    found = losses(expected, actual)["json"]
    assert (found.of_range, found.label_flips) == (0.05, 1)
