"""JSON beside pandas-records: columns, rows, one record, one value."""

import json

import numpy as np
import pytest

from columns import Columns, Schema
from columns.json_value import (
    BYTES_VALUE,
    columns_of,
    encode_columns,
    encode_rows,
    encode_shaped,
    encode_value,
    load_json,
    one_value,
)
from edgepack.errors import BadInput

ONE = Schema.parse({"x": "list<float32>[2]"})
TWO = Schema.parse({"a": "float32", "b": "string"})


@pytest.mark.parametrize(
    ("schema", "body", "rows", "shape"),
    [
        (ONE, {"x": [[1, 2], [3, 4]]}, 2, "columns"),
        (ONE, {"x": [1, 2]}, 1, "record"),
        (ONE, [[1, 2], [3, 4]], 2, "rows"),
        (ONE, [{"x": [1, 2]}], 1, "rows"),
        (TWO, {"a": [1, 2], "b": ["p", "q"]}, 2, "columns"),
        (TWO, {"a": 1, "b": "p"}, 1, "record"),
        (TWO, [{"a": 1, "b": "p"}], 1, "rows"),
    ],
)
def test_the_shape_of_a_body_is_known_by_the_schema(schema, body, rows, shape):
    columns, found = columns_of(body, schema)
    assert (columns.rows, found) == (rows, shape)


@pytest.mark.parametrize(
    ("schema", "body", "said"),
    [
        (ONE, 3, "single JSON value"),
        (ONE, None, "single JSON value"),
        (ONE, [], "0 rows"),
        (ONE, {"x": []}, "0 rows"),
        (ONE, {"y": [[1, 2]]}, "unknown field 'y'"),
        (ONE, [[1, 2], {"x": [1, 2]}], "all of one kind"),
        (ONE, [[1, 2], [1]], "row 1 field 'x'"),
        (TWO, {"a": [1, 2], "b": ["p"]}, "field 'b' has 1 rows, expected 2"),
        (TWO, [{"a": 1}], "row 0 has no field 'b'"),
        (TWO, [1], "row 0 is no object"),
        (TWO, {"a": [1, None], "b": ["p", "q"]}, "row 1 field 'a': expected float32, found null"),
    ],
)
def test_what_does_not_fit_is_named(schema, body, said):
    with pytest.raises(BadInput) as refusal:
        columns_of(body, schema)
    assert said in str(refusal.value)


def test_a_single_struct_is_told_from_a_record_by_its_fields():
    schema = Schema.parse({"s": "struct<v: int64>"})
    assert columns_of([{"v": 1}], schema)[0]["s"].tolist() == [{"v": 1}]
    assert columns_of([{"s": {"v": 1}}], schema)[0]["s"].tolist() == [{"v": 1}]


def test_answers_have_one_element_a_row_or_one_list_a_field():
    one = Columns.of(Schema.parse({"y": "list<float32>[1]"}), {"y": np.array([[0.1], [np.nan]], np.float32)})
    assert encode_rows(one) == b"[[0.1],[null]]"
    assert encode_columns(one) == b'{"y":[[0.1],[null]]}'
    two = Columns.of(TWO, {"a": [0.5, 1.5], "b": ["p", "q"]})
    assert json.loads(encode_rows(two)) == [{"a": 0.5, "b": "p"}, {"a": 1.5, "b": "q"}]
    assert json.loads(encode_columns(two)) == {"a": [0.5, 1.5], "b": ["p", "q"]}
    assert encode_shaped(two.slice(0, 1), "record") == b'{"a":0.5,"b":"p"}'
    assert encode_shaped(two, "columns") == encode_columns(two)


def test_arrays_of_any_layout_and_without_elements_are_written():
    empty = Columns.of(Schema.parse({"y": "list<float32>", "n": "int64"}), {"y": np.zeros((2, 0), "f4"), "n": [1, 2]})
    assert json.loads(encode_rows(empty)) == [{"y": [], "n": 1}, {"y": [], "n": 2}]
    turned = Columns(Schema.parse({"y": "list<int64>[2]", "n": "int64"}), {
        "y": np.arange(4).reshape(2, 2).T, "n": np.broadcast_to(np.array([7]), (2,))
    }, 2)  # fmt: skip
    assert json.loads(encode_rows(turned)) == [{"y": [0, 2], "n": 7}, {"y": [1, 3], "n": 7}]


def test_a_step_without_schema_takes_one_value_or_bytes():
    value = one_value(b'{ "a": [1, null] }', is_json=True)
    assert value["json"].tolist() == ['{"a":[1,null]}']
    assert encode_value(value) == b'{"a":[1,null]}'
    octets = one_value(b"\x00\xff", is_json=False)
    assert octets.schema == BYTES_VALUE
    assert encode_value(octets) == b"\x00\xff"


@pytest.mark.parametrize(
    ("body", "said"), [(b"[NaN]", "no NaN"), (b"{", "not JSON"), (b"", "not JSON"), (b"[" * 99999, "not JSON")]
)
def test_a_body_that_is_no_json_is_refused(body, said):
    with pytest.raises(BadInput, match=said):
        load_json(body)
