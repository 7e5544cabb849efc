import json

import numpy as np
import pytest

from columns import Columns, Schema, constant, decode_records, encode_records
from edgepack.errors import BadInput

SCHEMA = Schema.parse({"x": "list<float32>[2]", "k": "int8"})


def column(type_, *values):
    schema = Schema.parse({"v": type_})
    return decode_records(json.dumps([{"v": value} for value in values]).encode(), schema)["v"]


def test_rows_become_typed_arrays():
    columns = decode_records(b'[{"x":[1,2.5],"k":-1},{"k":127,"x":[0.1,4]}]', SCHEMA)
    assert columns.rows == 2 and columns["x"].dtype == np.float32 and columns["k"].dtype == np.int8
    assert columns["x"].tolist() == [[1, 2.5], [np.float32(0.1), 4]]


@pytest.mark.parametrize(
    ("body", "said", "field"),
    [
        (b"", "the body is not JSON", None),
        (b'[{"x":[1,2],"k":1}', "the body is not JSON", None),
        (b"\xff[]", "the body is not JSON", None),
        (b"[" * 100_000, "the body is not JSON", None),
        (b"[]", "the body has no rows", None),
        (b"{}", "the body is a JSON object: expected a list of records, \\[\\{\"x\": <list", None),
        (b"[[1]]", "row 0 is a JSON list: expected a record", None),
        (b'[{"x":[1,2],"k":1},7]', "row 1 is a JSON number: expected a record", None),
        (b'[{"x":[1,2]}]', "row 0 has no field 'k': expected int8", "k"),
        (b'[{"x":[1,2],"k":1,"kk":2}]', "row 0 has an unknown field 'kk': the schema has 'x', 'k'", "kk"),
        (b'[{"x":[1,2],"k":1,"a\\nb":2}]', r"an unknown field 'a\\nb': the", "a\\nb"),
        (b'[{"x":[1,2],"k":1},{"x":[1],"k":1}]', "row 1 field 'x': expected list<float32>.2., found a list of 1", "x"),
        (b'[{"x":[1,[2]],"k":1}]', "row 0 field 'x.1.': expected float32, found a list of 1", "x"),
        (b'[{"x":"12","k":1}]', "row 0 field 'x': expected list<float32>.2., found '12'", "x"),
        (b'[{"x":[1,null],"k":1}]', "row 0 field 'x.1.': expected float32, found null", "x"),
        (b'[{"x":[1,true],"k":1}]', "row 0 field 'x.1.': expected float32, found true", "x"),
        (b'[{"x":[1,1e39],"k":1}]', "row 0 field 'x.1.': expected float32 within its range, found 1e.39", "x"),
        (b'[{"x":[1,2],"k":1.0}]', "row 0 field 'k': expected int8, found 1.0", "k"),
        (b'[{"x":[1,2],"k":true}]', "row 0 field 'k': expected int8, found true", "k"),
        (b'[{"x":[1,2],"k":128}]', "row 0 field 'k': expected int8, -128 to 127, found 128", "k"),
        (b'[{"x":[1,2],"k":18446744073709551616}]', "row 0 field 'k': expected int8, found 1.8446744073709552e", "k"),
        (b'[{"x":[1,NaN],"k":1}]', "row 0 field 'x.1.': expected a finite float32 .JSON has no NaN", "x"),
        (b'[{"x":[1,2],"k":1},{"x":[-Infinity,2],"k":1}]', "row 1 field 'x.0.': expected a finite float32", "x"),
        (b'[{"x":[1,1e999],"k":1}]', "the body is not JSON: number is infinity", None),
        (b'[{"x":[1,NaN],"k":', "the body is not JSON", None),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_row_and_field(body, said, field):
    with pytest.raises(BadInput, match=said) as refusal:
        decode_records(body, SCHEMA)
    assert refusal.value.field == field and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("bool", [0]),
        ("bool", ["true"]),
        ("uint8", [-1]),
        ("int64", [2**63]),
        ("float16", [65520]),
        ("string", [1]),
        ("string", [["a"]]),
        ("binary", ["not base64!"]),
        ("binary", ["é"]),
        ("date32", ["2030-02-30"]),
        ("date32", [1]),
        ("timestamp[s]", [1]),
        ("timestamp[s]", ["2030-01-01T00:00:00.5"]),
        ("timestamp[ms]", ["2030-13-01T00:00:00"]),
        ("timestamp[ms]", [2**62]),
        ("timestamp[ns]", ["2300-01-01"]),
        ("list<list<int8>[2]>", [[[1, 2]], [[1]]]),
        ("struct<a: int8>", [{"a": 1, "b": 2}]),
        ("struct<a: int8>", [{}]),
        ("struct<a: int8>", [None]),
        ("struct<a: struct<b: list<int8>>>", [{"a": {"b": [1, "2"]}}]),
        ("list<int8?>?", [[1, None, 2.5]]),
    ],
)
def test_values_of_another_kind_are_never_converted(type_, values):
    with pytest.raises(BadInput, match=r"^row \d field 'v"):
        column(type_, *values)


def test_nested_faults_name_their_place():
    with pytest.raises(BadInput, match=r"row 0 field 'v.a.b\[1\]': expected int8, found '2'"):
        column("struct<a: struct<b: list<int8>>>", {"a": {"b": [1, "2"]}})


def test_points_in_time_are_read_in_utc():
    assert column("timestamp[ms]", 0, "1970-01-01T01:00:00.001+01:00").tolist()[0] == np.datetime64(0, "ms")
    assert str(column("timestamp[ms]", "1970-01-01T01:00:00.001+01:00")[0]) == "1970-01-01T00:00:00.001"
    assert str(column("timestamp[ns]", "2030-01-01 10:00Z")[0]) == "2030-01-01T10:00:00.000000000"


def test_names_nest_by_their_first_dot_or_are_joined_by_the_separator():
    schema = Schema.parse({"time": "int64", "in.x": "int8", "out.a.b": "int8", "in.y": "string"})
    columns = Columns.of(schema, {"time": [5], "in.x": [1], "out.a.b": [2], "in.y": ["é"]})
    assert json.loads(encode_records(columns)) == [{"time": 5, "in": {"x": 1, "y": "é"}, "out": {"a.b": 2}}]
    assert encode_records(columns, "_") == '[{"time":5,"in_x":1,"out_a.b":2,"in_y":"é"}]'.encode()
    clash = Columns.of(Schema.parse({"in": "int8", "in.x": "int8"}), {"in": [1], "in.x": [2]})
    with pytest.raises(BadInput, match="'in' is a column and a group"):
        encode_records(clash)
    assert encode_records(clash, ".") == b'[{"in":1,"in.x":2}]'


def test_numbers_are_written_shortest_and_non_finite_ones_as_null():
    schema = Schema.parse(
        {"a": "list<float32>[2]", "r": "list<float32>", "n": "float32?", "d": "float64", "h": "list<float16>[1]"}
    )
    values = {
        "a": np.array([[0.1, np.nan], [np.inf, 3]], np.float32),
        "r": [[0.1], [0.2, float("nan")]],
        "n": [None, 0.3],
        "d": np.array([0.1, -np.inf]),
        "h": np.array([[1], [2]], np.float16),
    }
    assert encode_records(Columns.of(schema, values)) == (
        b'[{"a":[0.1,null],"r":[0.1],"n":null,"d":0.1,"h":[1.0]},'
        b'{"a":[null,3.0],"r":[0.2,null],"n":0.3,"d":null,"h":[2.0]}]'
    )


def test_one_row_many_rows_constant_columns_and_empty_axes_are_written_alike():
    schema = Schema.parse({"t": "int64", "m": "list<list<float32>[2]>", "b": "binary", "e": "list<list<int8>>"})
    one = {
        "t": np.array([7]),
        "m": np.ones((1, 1, 2), np.float32),
        "b": np.array([b"\x00\xff"], object),
        "e": np.zeros((1, 0, 0), np.int8),
    }
    row = {"t": 7, "m": [[1.0, 1.0]], "b": "AP8=", "e": []}
    assert json.loads(encode_records(Columns.of(schema, one))) == [row]
    constants = {name: constant(array, 3) for name, array in one.items()}
    assert json.loads(encode_records(Columns.of(schema, constants))) == [row] * 3
    real = {name: np.ascontiguousarray(array) for name, array in constants.items()}
    assert json.loads(encode_records(Columns.of(schema, real))) == [row] * 3
    assert encode_records(Columns.of(schema, one).slice(0, 0)) == b"[]"
    assert encode_records(Columns(Schema(()), {}, 2)) == b"[{},{}]"


def test_arrays_that_are_not_contiguous_are_written_in_their_own_order():
    turned = np.arange(6, dtype=np.int32).reshape(2, 3).T
    columns = Columns.of(Schema.parse({"x": "list<int32>[2]"}), {"x": turned})
    assert json.loads(encode_records(columns)) == [{"x": row} for row in turned.tolist()]
