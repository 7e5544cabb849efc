"""Validations mean what plain Python says of each row alone: compared with an evaluator that knows no arrays."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.validations import Validation
from columns.columns import Columns
from columns.schema import Schema
from columns.values import column_from_values, object_array

INPUT = Schema.parse(
    {
        "i": "int32", "u": "uint8", "f": "float32", "b": "bool", "s": "string", "big": "int64",
        "xs": "list<float64>[3]", "ragged": "list<int16>", "grid": "list<list<int32>>", "words": "list<string>",
        "maybe": "float64?", "name": "string?", "flag": "bool?", "holes": "list<float64?>",
    }
)  # fmt: skip
NOTHING = Schema.parse({})


class NoValue(Exception):
    """The row has no value to look at."""


OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
DIVIDES = (ast.Div, ast.FloorDiv, ast.Mod)


def meaning(expression: str, row: dict[str, Any]) -> bool:
    """What an expression says of one row, by Python's own numbers. Everything is looked at, also behind `or`."""
    try:
        return bool(known(valued(ast.parse(expression.replace("in.", "row."), mode="eval").body, row)))
    except (NoValue, IndexError, TypeError):
        return True


def valued(node: ast.expr, row: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute):
        return row[node.attr]
    if isinstance(node, ast.Subscript):
        return valued(node.value, row)[ast.literal_eval(node.slice)]
    if isinstance(node, ast.UnaryOp):
        found = known(valued(node.operand, row))
        return not found if isinstance(node.op, ast.Not) else each(lambda value: -value, found)
    if isinstance(node, ast.BinOp):
        return each(lambda *two: computed(node.op, *two), valued(node.left, row), valued(node.right, row))
    if isinstance(node, ast.BoolOp):
        found = [known(valued(value, row)) for value in node.values]
        return all(found) if isinstance(node.op, ast.And) else any(found)
    if isinstance(node, ast.Compare):
        values = [valued(value, row) for value in (node.left, *node.comparators)]
        pairs = [each(lambda *two, op=op: compared(op, *two), *two)
                 for op, *two in zip(node.ops, values, values[1:], strict=False)]  # fmt: skip
        return pairs[0] if len(pairs) == 1 else all(pairs)
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return called(node.func.id, [valued(argument, row) for argument in node.args])


def known(value: Any) -> Any:
    if value is None:
        raise NoValue
    return value


def each(operation: Callable[..., Any], *values: Any) -> Any:
    """Lists element by element; one value meets every element."""
    if not any(isinstance(value, list) for value in values):
        return operation(*map(known, values))
    size = next(len(value) for value in values if isinstance(value, list))
    spread = [value if isinstance(value, list) else [value] * size for value in values]
    return [each(operation, *part) for part in zip(*spread, strict=True)]


def computed(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, DIVIDES) and right == 0:
        raise NoValue
    try:
        return OPERATIONS[type(op)](left, right)
    except OverflowError:
        return math.inf


def compared(op: ast.cmpop, left: Any, right: Any) -> bool:
    if left != left or right != right:
        raise NoValue
    return bool(OPERATIONS[type(op)](left, right))


def called(name: str, values: list[Any]) -> Any:
    if len(values) > 1:
        return extreme(name, [known(value) for value in values])
    if name == "abs":
        return each(abs, values[0])
    if name == "len":
        return len(values[0])
    leaves = [known(leaf) for leaf in flat(values[0])]
    if name in ("min", "max", "mean") and not leaves:
        raise NoValue
    if name in ("min", "max"):
        return extreme(name, leaves)
    return {"sum": sum, "any": any, "all": all, "mean": lambda all_: sum(all_) / len(all_)}[name](leaves)


def extreme(name: str, values: list[Any]) -> Any:
    if any(value != value for value in values):
        return math.nan
    return min(values) if name == "min" else max(values)


def flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, list) else [value]


# Rows and expressions

small = st.integers(-9, 9)
dyadic = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.25, -3.5, 7.0, math.nan, math.inf, -math.inf])
word = st.sampled_from(["", "a", "b", "a\0", "é"])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "i": small, "u": st.integers(0, 255), "f": dyadic, "b": st.booleans(), "s": word,
            "big": st.sampled_from([0, 1, -1, 2**40, -(2**40)]), "xs": st.lists(dyadic, min_size=3, max_size=3),
            "ragged": st.lists(small, max_size=3), "grid": st.lists(st.lists(small, max_size=2), max_size=2),
            "words": st.lists(word, max_size=2), "maybe": st.none() | dyadic, "name": st.none() | word,
            "flag": st.none() | st.booleans(), "holes": st.lists(st.none() | dyadic, max_size=2),
        }
    ),
    min_size=1, max_size=4,
)  # fmt: skip

NUMBERS = ["in.i", "in.u", "in.f", "in.big", "in.xs[0]", "in.xs[-1]", "in.ragged[0]", "in.ragged[-1]", "in.grid[0][1]",
           "in.maybe", "in.holes[0]", "len(in.words)", "len(in.holes)", "len(in.grid)", "len(in.grid[0])",
           "sum(in.grid)", "max(in.xs)", "min(in.ragged)", "sum(in.ragged)", "mean(in.ragged)", "sum(in.xs > 0)",
           "max(in.holes)", "sum(in.grid[1])", "mean(in.xs)", "0", "1", "-2", "0.5", "255"]  # fmt: skip
TRUTHS = ["in.b", "in.flag", "in.s == 'a'", "in.s < 'b'", "in.name != 'a'", "in.words[0] == 'a'", "any(in.xs > in.f)",
          "all(in.ragged >= 0)", "any(abs(in.xs) == 1)", "all(in.xs * 2 > in.xs)", "any(in.words == in.s)", "True",
          "all(in.holes >= 0)", "any(in.xs / in.i > 1)", "any(-in.xs == 1)"]  # fmt: skip

numbers = st.recursive(
    st.sampled_from(NUMBERS),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-"]), inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds("abs({})".format, inner),
        st.builds("(-{})".format, inner),
    ),
    max_leaves=4,
)
comparisons = st.builds("({} {} {})".format, numbers, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), numbers)
truths = st.recursive(
    st.sampled_from(TRUTHS) | comparisons,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=3,
)


def columns_of(found: list[dict[str, Any]]) -> Columns:
    schema = Schema.parse({f"in.{field.name}": field.text for field in INPUT})
    arrays = {
        field.name: column_from_values(field, [row[field.name.removeprefix("in.")] for row in found], json=False)
        for field in schema
    }
    return Columns(schema, arrays, len(found))


@given(truths, rows)
@settings(max_examples=150, deadline=None)
def test_every_expression_means_what_it_means_for_each_row_alone(expression: str, found: list[dict[str, Any]]) -> None:
    validation = Validation.compile("v", expression, INPUT, NOTHING)
    assert validation.evaluate(columns_of(found)).tolist() == [meaning(expression, row) for row in found], expression


@pytest.mark.parametrize("rows", [1, 3])
def test_dense_and_ragged_columns_of_the_same_values_agree(rows: int) -> None:
    schema, values = Schema.parse({"x": "list<float32>"}), np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    named = Schema.parse({"in.x": "list<float32>"})
    for expression in ("in.x[1] > 2", "sum(in.x) // 2 == 1", "any(in.x * 2 == 4)", "len(in.x) == 2"):
        validation = Validation.compile("v", expression, schema, NOTHING)
        dense = validation.evaluate(Columns(named, {"in.x": values}, rows))
        ragged = validation.evaluate(Columns(named, {"in.x": object_array(values.tolist())}, rows))
        assert dense.tolist() == ragged.tolist()


WHOLE = Schema.parse({"a": "int64", "b": "int64"})
LEAST, MOST = -(2**63), 2**63 - 1


@pytest.mark.parametrize(
    ("expression", "a", "b"),
    [
        ("in.a + in.b > 0", MOST, 1),
        ("in.a - in.b < 0", LEAST, 1),
        ("in.a * in.b > 0", 2**40, 2**40),
        ("-in.a > 0", LEAST, 0),
        ("abs(in.a) > 0", LEAST, 0),
        ("9223372036854775807 + 1 > in.a", 0, 0),
        ("in.a == in.b + 1", 2**53 + 1, 2**53),
        ("in.a + 1 == 9223372036854775807", MOST - 1, 0),
        ("(in.a - in.b) * 3 == 3", MOST, MOST - 1),
    ],
)
def test_large_whole_numbers_do_not_wrap_around(expression: str, a: int, b: int) -> None:
    named = Schema.parse({"in.a": "int64", "in.b": "int64"})
    found = Columns(named, {"in.a": np.array([a]), "in.b": np.array([b])}, 1)
    assert Validation.compile("v", expression, WHOLE, NOTHING).evaluate(found).tolist() == [True]


@pytest.mark.parametrize(
    "expression",
    ["in.f > 1", "in.f < 1", "in.f == in.f", "not in.f > 1", "max(in.xs) < 9", "any(in.xs > 3)", "in.i / 0 > 1",
     "in.i // 0 < 1", "in.i % 0 == 0", "1 // 0 > 1", "in.i > 0 and in.f > 1", "mean(in.ragged) > 0", "in.ragged[0] > 0",
     "not in.flag", "in.flag", "in.name == 'a'", "in.maybe > 0", "True or in.f > 1"],
)  # fmt: skip
def test_a_row_without_a_value_to_look_at_is_an_anomaly_whatever_is_asked(expression: str) -> None:
    nothing = {"i": 1, "u": 0, "f": math.nan, "b": False, "s": "", "big": 0, "xs": [1.0, math.nan, 2.0], "ragged": [],
               "grid": [], "words": [], "maybe": None, "name": None, "flag": None, "holes": []}  # fmt: skip
    whole = {**nothing, "f": 5.0, "xs": [1.0, 2.0, 3.0], "ragged": [1], "maybe": 1.0, "name": "b", "flag": False}
    validation = Validation.compile("v", expression, INPUT, NOTHING)
    assert validation.evaluate(columns_of([nothing])).tolist() == [True]
    assert validation.evaluate(columns_of([whole, nothing])).tolist() == [meaning(expression, whole), True]
