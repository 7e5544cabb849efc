"""Tensors and messages of the Open Inference Protocol v2."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from columns import Columns, Schema, bfloat16
from columns.oip import decode_request, encode_request, encode_response
from columns.oip_columns import decode_oip, describe, encode_oip, from_columns, to_columns
from columns.oip_tensors import DTYPES, Tensor, from_json, from_raw, to_json, to_raw
from edgepack.errors import BadInput

NUMERIC = sorted(set(DTYPES) - {"BYTES", "BF16"})


def request(inputs, **more):
    return json.dumps({"inputs": inputs, **more}).encode()


def x(data, datatype="FP32", shape=None, name="x", **more):
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data, **more}


@pytest.mark.parametrize("datatype", NUMERIC)
@pytest.mark.parametrize("raw", [True, False])
def test_every_datatype_comes_back_from_json_and_raw_bytes(datatype, raw):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[datatype])
    body, size = encode_request([Tensor("x", datatype, array)], raw=raw)
    found = decode_request(body, size).tensors["x"]
    assert (size is not None) == raw
    assert found.datatype == datatype
    assert found.array.dtype == array.dtype
    assert np.array_equal(found.array, array)


@given(hnp.arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@settings(max_examples=100, deadline=None)
def test_a_bfloat16_is_the_nearest_to_a_float32_and_exact_afterwards(array):
    found = from_raw("x", "BF16", array.shape, memoryview(to_raw(Tensor("x", "BF16", array)))).array
    again = bfloat16.from_bits(bfloat16.to_bits(found))
    assert np.array_equal(again, found)
    finite = np.isfinite(found)
    assert np.all(np.abs(found - array)[finite] <= np.abs(array)[finite] * 2**-8 + 2.0**-133)


def test_bfloat16_keeps_nan_and_infinities():
    bits = bfloat16.to_bits(np.array([np.nan, np.inf, -np.inf, -0.0], np.float32))
    assert [hex(each) for each in bits] == ["0x7fc0", "0x7f80", "0xff80", "0x8000"]


def test_bytes_have_their_length_in_front():
    raw = to_raw(Tensor("x", "BYTES", np.array(["é", b"\x00\xff"], dtype=object)))
    assert bytes(raw) == b"\x02\0\0\0\xc3\xa9\x02\0\0\0\x00\xff"
    assert from_raw("x", "BYTES", [2], memoryview(raw)).array.tolist() == ["é".encode(), b"\x00\xff"]


def test_json_data_may_be_flat_or_nested():
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        assert from_json("x", "INT64", [2, 2], data).array.tolist() == [[1, 2], [3, 4]]
    assert from_json("x", "FP32", [], [1.5]).array.shape == ()
    assert from_json("x", "BYTES", [1, 2], ["a", "b"]).array.tolist() == [["a", "b"]]


def test_numbers_that_are_not_finite_are_null_in_json_and_themselves_raw():
    tensor = Tensor("x", "FP32", np.array([1.0, np.nan, np.inf], np.float32))
    assert json.loads(to_json(tensor)) == [1.0, None, None]
    assert np.array_equal(from_raw("x", "FP32", [3], memoryview(to_raw(tensor))).array, tensor.array, equal_nan=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (x([1.0, None]), "'x[1]': expected float32, found null"),
        (x([1, "a"]), "'x[1]': expected float32, found 'a'"),
        (x([1, 2], shape=[3]), "has 2 elements, its shape [3] takes 3"),
        (x([[1, 2], [3]], shape=[2, 2]), "nested data that is not of its shape"),
        (x([1], "FP8"), "datatype 'FP8'"),
        (x([1], shape=[-1]), "shape [-1]"),
        (x([300], "UINT8"), "expected uint8, 0 to 255"),
        (x([1.5], "INT32"), "expected int32, found 1.5"),
        (x([1e39]), "within its range"),
        ({"name": "x", "datatype": "FP32", "shape": [1]}, "neither `data` nor"),
        (x([1], parameters={"shared_memory_region": "r"}), "shared memory"),
        (x([1], parameters={"binary_data_size": 4}), "cut short"),
    ],
)
def test_an_input_that_does_not_fit_is_named(given, said):
    with pytest.raises(BadInput) as refusal:
        decode_request(request([given]))
    assert said in str(refusal.value)
    assert refusal.value.field == "x"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no inference request"),
        (b"[" * 5000, "no inference request"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', "JSON has no NaN"),
        (b'{"inputs":{}}', "no inference request"),
        (b"\xff\xfe{}", "no inference request"),
        (request([x([1]), x([1])]), "'x' is there twice"),
        (request([x([1])]) + b"tail", "no inference request"),
    ],
)
def test_a_body_that_is_no_request_is_refused_in_one_line(body, said):
    with pytest.raises(BadInput, match=said) as refusal:
        decode_request(body)
    assert "\n" not in str(refusal.value)


def test_raw_bytes_must_be_as_many_as_the_head_says():
    body, size = encode_request([Tensor("x", "FP32", np.zeros(3, np.float32))], raw=True)
    for changed in (body[:-1], body + b"\0", body[: size or 0]):
        with pytest.raises(BadInput):
            decode_request(changed, size)
    for wrong in (-1, len(body) + 1):
        with pytest.raises(BadInput, match="said to have"):
            decode_request(body, wrong)
    with pytest.raises(BadInput, match="BOOL"):
        from_raw("x", "BOOL", [1], memoryview(b"\x02"))
    for broken in (b"\x05\0\0\0ab", b"\xff\xff\xff\xff", b"\x01\0\0", b""):
        with pytest.raises(BadInput, match="BYTES elements"):
            from_raw("x", "BYTES", [1], memoryview(broken))


def test_outputs_are_those_asked_for_raw_where_asked():
    plain = decode_request(request([x([1])]))
    assert plain.wanted(["a", "b"]) == {"a": False, "b": False}
    all_raw = decode_request(request([x([1])], parameters={"binary_data_output": True}))
    assert all_raw.wanted(["a"]) == {"a": True}
    chosen = [{"name": "b", "parameters": {"binary_data": False}}, {"name": "a"}]
    some = decode_request(request([x([1])], parameters={"binary_data_output": True}, outputs=chosen))
    assert some.wanted(["a", "b"]) == {"b": False, "a": True}
    with pytest.raises(BadInput, match="no output 'b': there is 'a'"):
        some.wanted(["a"])
    with pytest.raises(BadInput, match="classification"):
        decode_request(request([x([1])], outputs=[{"name": "a", "parameters": {"classification": 3}}]))


def test_a_response_says_where_its_json_ends_if_raw_tensors_follow():
    outputs = [
        (Tensor("y", "FP32", np.array([[1.5]], np.float32)), True),
        (Tensor("n", "INT64", np.array([7])), False),
    ]
    body, size = encode_response("m", "v", "call-1", outputs)
    head = json.loads(body[:size])
    assert head["id"] == "call-1"
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert head["outputs"][1]["data"] == [7]
    assert np.frombuffer(body[size:], np.float32) == [1.5]
    assert encode_response("m", "v", "", outputs[1:])[1] is None


# Columns

SCHEMA = Schema.parse({"x": "list<float32>[2]", "name": "string", "n": "int64", "tags": "list<string>[2]"})


def rows():
    given = {"x": [[1, 2], [3, 4]], "name": ["a", "é"], "n": [1, 2], "tags": [["p", "q"], ["r", "s"]]}
    return Columns.of(SCHEMA, given)


def test_rows_are_the_first_axis_of_every_tensor():
    shapes = {tensor.name: (tensor.datatype, tensor.array.shape) for tensor in from_columns(rows())}
    assert shapes == {"x": ("FP32", (2, 2)), "name": ("BYTES", (2,)), "n": ("INT64", (2,)), "tags": ("BYTES", (2, 2))}
    assert describe(SCHEMA)[3] == {"name": "tags", "datatype": "BYTES", "shape": [-1, 2]}


def test_a_value_a_row_may_come_as_a_column_and_a_single_row_without_its_axis():
    columns = to_columns({"n": Tensor("n", "INT32", np.array([[1], [2]], np.int32))}, Schema.parse({"n": "int64"}))
    assert columns["n"].tolist() == [1, 2]
    one = to_columns({"x": Tensor("x", "FP32", np.ones(2, np.float32))}, Schema.parse({"x": "list<float32>[2]"}))
    assert one.rows == 1


def test_a_null_a_struct_and_a_ragged_list_travel_as_json_text():
    schema = Schema.parse({"a": "float32?", "s": "struct<v: int64>", "r": "list<float32>"})
    columns = Columns.of(schema, {"a": [None, 1.5], "s": [{"v": 1}, {"v": 2}], "r": [[1.0], []]})
    texts = {tensor.name: tensor.array.tolist() for tensor in from_columns(columns)}
    assert texts == {"a": ["null", "1.5"], "s": ['{"v":1}', '{"v":2}'], "r": ["[1.0]", "[]"]}
    body, size = encode_oip(columns, raw=True)
    assert decode_oip(body, schema, size)["r"].tolist() == [[1.0], []]


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("x", Tensor("x", "FP64", np.ones((2, 2))), "is FP64, expected FP32"),
        ("x", Tensor("x", "FP32", np.ones((2, 3), np.float32)), "has shape [2, 3], expected [-1, 2]"),
        ("x", Tensor("x", "BOOL", np.ones((2, 2), bool)), "is BOOL, expected FP32"),
        ("name", Tensor("name", "FP32", np.ones(2, np.float32)), "send BYTES"),
        ("name", Tensor("name", "BYTES", np.array([b"\xff", b"a"], object)), "not UTF-8"),
        ("n", Tensor("n", "INT64", np.ones(3, np.int64)), "has 3 rows, expected 2"),
        ("n", Tensor("n", "INT64", np.ones(0, np.int64)), "has 0 rows"),
    ],
)
def test_a_tensor_that_is_no_column_of_the_schema_is_named(name, tensor, said):
    tensors = {each.name: each for each in from_columns(rows())} | {name: tensor}
    with pytest.raises(BadInput) as refusal:
        to_columns(tensors, SCHEMA)
    assert said in str(refusal.value)
    assert refusal.value.field == name


def test_unknown_and_missing_inputs_are_refused_by_name():
    tensors = {each.name: each for each in from_columns(rows())}
    with pytest.raises(BadInput, match="unknown field 'z'"):
        to_columns({**tensors, "z": tensors["n"]}, SCHEMA)
    with pytest.raises(BadInput, match="no field 'n'"):
        to_columns({name: each for name, each in tensors.items() if name != "n"}, SCHEMA)
