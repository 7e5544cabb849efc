import numpy as np
import pytest

from columns import Columns, Schema, constant
from columns.columns import is_constant
from edgepack.errors import BadInput

SCHEMA = Schema.parse({"x": "list<float32>[2]", "n": "list<int64>", "s": "string"})


def sample(rows=3):
    arrays = {
        "x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2),
        "n": np.arange(rows, dtype=np.int64).reshape(rows, 1),
        "s": np.array([f"row {row}" for row in range(rows)]),
    }
    return Columns.of(SCHEMA, arrays)


def test_of_takes_arrays_as_they_are_and_converts_plain_lists():
    columns = sample()
    assert columns.rows == 3 and columns["s"].dtype == object and columns["s"].tolist()[0] == "row 0"
    listed = Columns.of(SCHEMA, {"x": [[1, 2.5]], "n": [[]], "s": ["a"]})
    assert listed["x"].dtype == np.float32 and listed["n"].shape == (1, 0)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("x", np.zeros((3, 2)), "field 'x' is float64, the schema says list<float32>\\[2\\]"),
        ("x", np.zeros((3, 3), np.float32), "field 'x' has rows of shape \\(3,\\)"),
        ("x", np.zeros((2, 2), np.float32), "field 'x' has 2 rows|field 'n' has 3 rows"),
        ("x", np.zeros(()), "field 'x' is a single value"),
        ("n", [[1], [True], [2]], "row 1 field 'n\\[0\\]': expected int64, found true"),
        ("n", [[1], [2**63], [2]], "row 1 field 'n\\[0\\]': expected int64, -9223372036854775808 to"),
        ("s", ["a", None, "b"], "row 1 field 's': expected string, found null"),
        ("s", np.array(["a", 1, "b"], object), "row 1 field 's': expected string, found 1"),
        ("s", np.arange(3), "row 0 field 's': expected string, found 0"),
    ],
)
def test_of_refuses_what_the_schema_does_not_say(name, array, said):
    arrays = {**sample().arrays, name: array}
    with pytest.raises(BadInput, match=said) as refusal:
        Columns.of(SCHEMA, arrays, rows=3)
    assert refusal.value.field == name


def test_ragged_lists_become_plain_python_lists_rounded_as_their_type_keeps_them():
    columns = Columns.of(Schema.parse({"r": "list<float32>"}), {"r": [[0.1], [], [1, 2]]})
    assert columns["r"].dtype == object
    assert columns["r"].tolist() == [[float(np.float32(0.1))], [], [1.0, 2.0]]


def test_a_column_that_is_the_same_in_each_row_stays_one_row_in_memory():
    column = constant(np.array(["v1"], object), 5)
    columns = Columns.of(Schema.parse({"v": "string"}), {"v": column})
    assert is_constant(columns["v"]) and columns["v"].tolist() == ["v1"] * 5
    assert not is_constant(constant(np.zeros(1), 1))


def test_select_rename_slice_and_merge_make_new_columns():
    columns = sample()
    renamed = columns.select(["s", "x"]).rename({"s": "in.s"})
    assert renamed.schema.names == ("in.s", "x") and renamed["in.s"] is columns["s"]
    cut = columns.slice(1, 99)
    assert cut.rows == 2 and cut["n"].tolist() == [[1], [2]] and columns.slice(2, 1).rows == 0
    both = columns.merge(columns.rename({"x": "a", "n": "b", "s": "c"}))
    assert both.schema.names == ("x", "n", "s", "a", "b", "c")
    with pytest.raises(BadInput, match="two fields 'x'"):
        columns.merge(columns)
    with pytest.raises(BadInput, match="2 rows do not fit beside columns of 3 rows"):
        columns.merge(cut)
    with pytest.raises(BadInput, match="no field 'y'"):
        columns["y"]


def test_concat_puts_rows_after_rows_and_turns_unequal_lengths_into_lists():
    longer = Columns.of(SCHEMA, {"x": [[7, 8]], "n": [[5, 6]], "s": ["z"]})
    together = Columns.concat([sample(2), longer])
    assert together.rows == 3 and together["x"].shape == (3, 2)
    assert together["n"].tolist() == [[0], [1], [5, 6]] and together["s"].tolist()[2] == "z"
    assert Columns.concat([longer]) is longer
    with pytest.raises(BadInput, match="do not continue"):
        Columns.concat([longer, longer.select(["x"])])
    with pytest.raises(BadInput, match="no columns"):
        Columns.concat([])
