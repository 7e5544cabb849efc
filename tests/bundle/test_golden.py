"""Golden rows and their comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bundle.golden import GoldenRows, compare
from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import BadInput

INPUT = Schema.parse({"x": "list<float32>[2]"})
OUTPUT = Schema.parse({"label": "int64", "score": "list<float32>[2]"})

finite = st.floats(-1e6, 1e6, width=32)
scores = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(2)), elements=finite)


def answers(score: Any, label: Any = None) -> Columns:
    score = np.asarray(score, dtype=np.float32)
    labels = np.zeros(len(score), np.int64) if label is None else np.asarray(label, dtype=np.int64)
    return Columns.of(OUTPUT, {"label": labels, "score": score})


def test_rows_are_read_with_dotted_and_with_bare_names() -> None:
    dotted = GoldenRows.decode(b'[{"in.x": [1, 2], "out.label": 3, "out.score": [0.5, 0.25]}]', INPUT, OUTPUT)
    bare = GoldenRows.decode(b'[{"x": [1, 2]}]', INPUT, OUTPUT)
    assert dotted.outputs is not None and dotted.outputs.arrays["label"].tolist() == [3]
    assert bare.outputs is None and bare.inputs.arrays["x"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "text, named",
    [
        (b"", "not JSON"),
        (b"{}", "pandas-records"),
        (b"[]", "pandas-records"),
        (b"[1]", "pandas-records"),
        (b'[{"in.x": [1]}]', "'x'"),
        (b'[{"in.x": [1, "a"]}]', "'x[1]'"),
        (b'[{"in.y": [1, 2]}]', "'y'"),
        (b'[{"in.x": [1, 2], "x": [1, 2]}]', "twice"),
        (b'[{"in.x": [1, 2], "out.label": 1}]', "'label', the pipeline gives 'label', 'score'"),
        (b'[{"in.x": [1, 2], "out.label": 1, "out.score": [1, 2]}, {"in.x": [1, 2]}]', "golden row 1"),
        (b'[{"in.x": [NaN, 2]}]', "JSON"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(text: bytes, named: str) -> None:
    with pytest.raises(BadInput) as refused:
        GoldenRows.decode(text, INPUT, OUTPUT)
    assert named in str(refused.value)


def test_a_null_in_an_expected_score_stands_for_a_number_that_is_not_finite() -> None:
    rows = GoldenRows.decode(b'[{"x": [1, 2], "out.label": 1, "out.score": [null, 0.5]}]', INPUT, OUTPUT)
    assert rows.outputs is not None
    assert compare(rows.outputs, answers([[np.inf, 0.5]], [1]), 1e-5).passed
    assert not compare(rows.outputs, answers([[3.0, 0.5]], [1]), 1e-5).passed


@given(scores, scores)
def test_what_is_written_is_read_again(x: Any, score: Any) -> None:
    rows = min(len(x), len(score))
    whole = GoldenRows(Columns.of(INPUT, {"x": x[:rows]}), answers(score[:rows]))
    again = GoldenRows.decode(whole.encode(), INPUT, OUTPUT)
    assert again.outputs is not None and whole.outputs is not None
    assert compare(whole.inputs, again.inputs, 0).passed
    assert compare(whole.outputs, again.outputs, 0).passed
    assert again.encode() == whole.encode()


@given(scores)
def test_everything_equals_itself(score: Any) -> None:
    found = compare(answers(score), answers(score.copy()), 0)
    assert (found.passed, found.max_abs, found.max_rel, found.label_flips, found.worst_row) == (True, 0, 0, 0, None)


@given(scores, st.integers(0, 1), st.floats(1e-3, 10), st.floats(1e-6, 1e-1))
def test_one_changed_value_is_found_exactly_when_it_is_beyond_the_tolerance(
    score: Any, column: int, shift: float, tolerance: float
) -> None:
    row = len(score) - 1
    other = score.copy()
    other[row, column] += np.float32(shift)
    absolute = abs(float(other[row, column]) - float(score[row, column]))
    relative = absolute / max(1.0, abs(float(score[row, column])))
    found = compare(answers(score), answers(other), tolerance)
    assert (found.max_abs, found.max_rel) == (absolute, relative)
    assert found.passed == (relative <= tolerance)
    assert found.worst_row == (row if relative else None)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_label_flips_are_counted_and_never_tolerated(one: list[int], other: list[int]) -> None:
    other = other[: len(one)]
    score = np.zeros((len(one), 2), np.float32)
    found = compare(answers(score, one), answers(score, other), 1e9)
    assert found.label_flips == sum(a != b for a, b in zip(one, other, strict=True))
    assert found.passed == (one == other)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_against_none_is_a_flip_and_all_figures_stay_finite(bad: float) -> None:
    found = compare(answers([[1.0, 2.0]]), answers([[1.0, bad]]), 1.0)
    assert (found.passed, found.label_flips, found.worst_row) == (False, 1, 0)
    assert np.isfinite([found.max_abs, found.max_rel]).all()


def test_the_reason_names_row_field_and_both_values() -> None:
    found = compare(answers([[1, 2], [3, 4]]), answers([[1, 2], [3, 4.5]]), 1e-5)
    assert found.reason == "row 1, field 'score': expected 4, found 4.5 (tolerance 1e-05)"


def test_strings_and_ragged_lists_are_compared_too() -> None:
    schema = Schema.parse({"name": "string", "scores": "list<float32>"})

    def columns(name: str, *rows: list[float]) -> Columns:
        return Columns.of(schema, {"name": [name] * len(rows), "scores": list(rows)})

    expected = columns("a", [1.0], [2.0, 3.0])
    assert compare(expected, columns("a", [1.0], [2.0, 3.0]), 0).passed
    assert compare(expected, columns("a", [1.0], [2.0, 3.001]), 1e-2).passed
    near = compare(expected, columns("a", [1.0], [2.0, 3.5]), 1e-2)
    assert (near.passed, near.worst_row, near.max_abs) == (False, 1, 0.5)
    assert compare(expected, columns("a", [1.0], [2.0]), 1).label_flips == 1
    assert compare(expected, columns("b", [1.0], [2.0, 3.0]), 1).label_flips == 2


def test_other_fields_or_row_counts_are_not_comparable() -> None:
    with pytest.raises(BadInput, match="2 rows"):
        compare(answers([[1, 2]]), answers([[1, 2], [3, 4]]), 0)
    with pytest.raises(BadInput, match="'x'"):
        compare(answers([[1, 2]]), Columns.of(INPUT, {"x": np.zeros((1, 2), np.float32)}), 0)
