"""Made rows: they depend on schema, digest and recipe alone."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.golden import GoldenRows
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.golden import LARGEST_ROW, Recipe, check_tolerance, made_rows, recipes

SCHEMA = Schema.parse(
    {"x": "list<float32>[3]", "n": "int64", "s": "string", "b": "bool", "free": "list<list<float16>>"}
)
RECIPE = Recipe(4, 9)


def test_rows_of_bytes_are_made_and_travel() -> None:
    schema = Schema.parse({"blob": "binary", "parts": "list<binary>[2]"})
    rows = GoldenRows(made_rows(schema, "", RECIPE))
    again = GoldenRows.decode(rows.encode(), schema, schema).inputs.arrays
    assert all(isinstance(each, bytes) for each in again["blob"]) and len(again["parts"][0]) == 2


def test_made_rows_are_these_and_will_always_be_these() -> None:
    made = made_rows(SCHEMA, "sha256:" + "0" * 64, RECIPE)
    assert made.rows == 8
    assert made.arrays["x"][0].tolist() == [0.36328125, 0.94921875, -1.37109375]
    assert made.arrays["n"].tolist() == [4, 0, 0, 6, 7, 6, 6, 7]
    assert made.arrays["s"].tolist() == ["a", "0", "", "edge", "edge", "a", "other", "0"]


def test_rows_hold_zeros_small_integers_ones_and_a_bell() -> None:
    x = made_rows(Schema.parse({"x": "list<float32>[500]"}), "", RECIPE).arrays["x"]
    assert not x[1].any() and (x[3] == 1).all()
    assert set(x[2].tolist()) == set(range(10))
    assert abs(x[0].mean()) < 0.3 and 1 < x[0].std() < 3 and np.abs(x).max() <= 9


def test_free_axes_have_one_length_so_that_fields_fit_together() -> None:
    assert made_rows(SCHEMA, "", RECIPE).arrays["free"].shape == (8, 4, 4)


def test_another_digest_gives_other_rows() -> None:
    one, other = (made_rows(SCHEMA, digest, RECIPE).arrays["x"] for digest in ("a", "b"))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "types, tried",
    [({"x": "list<float32>[3]"}, 1), ({"x": "int64"}, 3), ({"x": "list<float32>"}, 4), ({"x": "string"}, 1)],
)
def test_only_recipes_that_differ_are_tried(types: dict[str, str], tried: int) -> None:
    assert len(recipes(Schema.parse(types))) == tried


def test_rows_that_would_fill_the_memory_are_not_made() -> None:
    assert recipes(Schema.parse({"x": f"list<float32>[{LARGEST_ROW + 1}]"})) == []
    assert all(recipe.free_axis < 200 for recipe in recipes(Schema.parse({"x": "list<list<list<float32>>>"})))
    assert made_rows(Schema.parse({"x": "list<float32>[150000]"}), "", RECIPE).rows == 2


OUTPUTS = [Schema.parse({"tensor": "list<float32>[2]"}), Schema.parse({"score": "float32", "label": "string"})]


def test_tolerances_are_of_fields_that_some_step_gives() -> None:
    check_tolerance({"score": 1e-3, "tensor": 1e-4}, OUTPUTS)
    check_tolerance(1e-3, OUTPUTS)


@pytest.mark.parametrize(
    "name, hint", [("scor", "is it 'score'"), ("zzz", "there is tensor, score, label"), ("", "there is")]
)
def test_a_tolerance_of_an_unknown_field_is_refused_by_name(name: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"tolerance names '{name}', which no step gives: {hint}") as refused:
        check_tolerance({"score": 1e-3, name: 1e-3}, OUTPUTS)
    assert refused.value.field == f"golden.tolerance.{name}"
