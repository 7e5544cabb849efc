"""Validations: what the language can say, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.validations import Validation
from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import BadInput

INPUT = Schema.parse({"x": "list<float32>[3]", "name": "string", "odd name": "int32"})
OUTPUT = Schema.parse({"y": "list<float32>", "small": "uint8", "grid": "list<list<float32>[2]>[2]", "big": "uint64"})


def result(rows: int = 2, **changes: Any) -> Columns:
    schema = Schema.parse(
        {f"in.{f.name}": f.text for f in INPUT.fields} | {f"out.{f.name}": f.text for f in OUTPUT.fields}
    )
    arrays = {
        "in.x": np.array([[1, 2, 3], [4, 5, 0.9]], np.float32),
        "in.name": np.array(["a", "b"], object),
        "in.odd name": np.array([7, 8], np.int32),
        "out.y": np.array([[1, 2], [3, 4]], np.float32),
        "out.small": np.array([1, 255], np.uint8),
        "out.grid": np.arange(8, dtype=np.float32).reshape(2, 2, 2),
        "out.big": np.array([0, 2**64 - 1], np.uint64),
    }
    return Columns.of(schema, {**arrays, **changes}).slice(0, rows)


def evaluate(expression: str, **changes: Any) -> list[bool]:
    found: list[bool] = Validation.compile("v", expression, INPUT, OUTPUT).evaluate(result(**changes)).tolist()
    return found


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("in.x[2] > 1", [True, False]),
        ("in.x[-1] > 1", [True, False]),
        ("in.x[2] == 0.9", [False, False]),  # float32 0.9 is not 0.9
        ("in.name == 'a'", [True, False]),
        ('in["odd name"] >= 8', [False, True]),
        ("max(in.x) > 4 and not out.small == 1", [False, True]),
        ("min(in.x) < 1 or out.y[0] == 1", [True, True]),
        ("out.small + 1 > 255", [False, True]),  # 8 bits would wrap around
        ("out.small - 2 < 0", [True, False]),
        ("out.big > 1", [False, True]),
        ("sum(out.y) / len(out.y) == mean(out.y)", [True, True]),
        ("any(in.x * out.small > 600)", [False, True]),
        ("all(out.y >= out.y[0])", [True, True]),
        ("0 < out.small < 2", [True, False]),
        ("abs(-in.x[0] + 1) > 2", [False, True]),
        ("max(in.x[0], out.small, 3) == 3", [True, False]),
        ("sum(in.x > 2) == 2", [False, True]),
        ("sum(out.grid) > 10", [False, True]),
        ("out.grid[1][0] == 6", [False, True]),
        ("in.x[0] / 0 > 1", [True, True]),
        ("in.x[0] // 2 == 2 or in.x[0] % 2 == 1", [True, True]),
        ("True", [True, True]),
        ("1 > 2", [False, False]),
        ("out.y[9] > 1", [True, True]),  # too short to look at: an anomaly
    ],
)
def test_an_expression_gives_one_boolean_a_row(expression: str, expected: list[bool]) -> None:
    assert evaluate(expression) == expected


def test_ragged_lists_are_looked_at_row_by_row() -> None:
    ragged = np.empty(2, object)
    ragged[:] = [[1.0], [5.0, 6.0]]
    assert evaluate("max(out.y) > 2", **{"out.y": ragged}) == [False, True]
    assert evaluate("out.y[1] > 9", **{"out.y": ragged}) == [True, False]
    assert evaluate("len(out.y) == 2", **{"out.y": ragged}) == [False, True]


@pytest.mark.parametrize(
    "expression, named",
    [
        ("", "does not parse"),
        ("(", "does not parse"),
        ("in.x[0] >", "does not parse"),
        ("in.missing > 1", "in.x"),
        ("x > 1", "names 'x'"),
        ("in.x", "list of numbers"),
        ("in.x > 1", "list of bools"),
        ("in.x[0]", "a number"),
        ("in.x[3] > 1", "has 3 values"),
        ("in.x[0][0] > 1", "takes an index"),
        ("in.x[0:1] > 1", "index"),
        ("in.x[in.x[0]] > 1", "index"),
        ("in.name > 1", "compares a string with a number"),
        ("in.name + 1 > 1", "a string"),
        ("in.x + out.grid > 1", "joins"),
        ("in.x[0] ** 9 > 1", "expected one of"),
        ("in.x[0] if True else False", "not part of the language"),
        ("lambda: True", "not part of the language"),
        ("[1][0] > 0", "not part of the language"),
        ("(x := 1) > 0", "not part of the language"),
        ("b'a' == 'a'", "constant"),
        ("in.x.__class__ == 1", "in.x.__class__"),
        ("__import__('os') == 1", "calls"),
        ("in.x[0].real > 1", "expected in.<field>"),
        ("max(in.x, key=1) > 1", "calls"),
        ("max() > 1", "calls"),
        ("len(in.name) > 1", "a string"),
        ("any(in.x) > 1", "list of bools"),
        ("1 in in.x", "expected one of"),
        ("in.x[0] is 1", "expected one of"),
        ("99999999999999999999 > in.x[0]", "constant"),
        ("None == in.x[0]", "constant"),
        ("1 " + "+ 1" * 400 + " > 0", "longer"),
        ("0 < in.x < 2", "chains"),
    ],
)
def test_what_the_language_cannot_say_is_refused_by_name(expression: str, named: str) -> None:
    with pytest.raises(BadInput, match="validation 'v'") as refused:
        evaluate(expression)
    assert named in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.field == "validations.v"


@pytest.mark.parametrize("name", ["count", "", "a.b", "two words", "ü"])
def test_a_name_that_a_result_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        Validation.compile(name, "True", INPUT, OUTPUT)


WORDS = (
    "in out . x y [ ] 0 1 -1 0.5 'a' + - * / // % ** < <= == != and or not min max sum mean abs len any all ( ) , in.x "
    "out.y out.small in.name True None lambda : if else @ ~"
)


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12))
def test_no_text_makes_the_compiler_fall_over(words: list[str]) -> None:
    try:
        validation = Validation.compile("v", " ".join(words), INPUT, OUTPUT)
    except BadInput:
        return
    assert validation.evaluate(result()).dtype == bool


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), st.floats(-1e3, 1e3))
def test_numbers_compare_as_python_compares_them(row: list[float], limit: float) -> None:
    x = np.array([row, row], np.float32)
    assert evaluate(f"max(in.x) > {limit!r}", **{"in.x": x}) == [max(row) > limit] * 2
    assert evaluate(f"in.x[0] - in.x[1] <= {limit!r}", **{"in.x": x}) == [row[0] - row[1] <= limit] * 2
