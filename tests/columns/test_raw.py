import numpy as np
import orjson
import pytest

from columns import Columns, Schema, constant, decode_raw, encode_raw
from columns.columns import is_constant
from columns.raw import join_raw
from edgepack.errors import BadInput


def framed(head: object, *buffers: bytes) -> bytes:
    text = head if isinstance(head, bytes) else orjson.dumps(head)
    text += b" " * (-len(text) % 8)
    return b"EPC1" + len(text).to_bytes(4, "little") + text + b"".join(buffers)


def test_a_column_that_is_the_same_in_each_row_is_stored_once():
    schema = Schema.parse({"v": "string", "x": "list<float32>[4]"})
    rows = {"v": constant(np.array(["version"], object), 1000), "x": constant(np.ones((1, 4), np.float32), 1000)}
    data = join_raw(encode_raw(Columns.of(schema, rows)))
    assert len(data) < 200
    back = decode_raw(data)
    assert back.rows == 1000 and is_constant(back["v"]) and is_constant(back["x"])


def test_tensors_are_neither_copied_in_nor_out_and_lie_aligned():
    numbers = np.arange(12, dtype=np.float64).reshape(3, 4)
    columns = Columns.of(Schema.parse({"f": "bool", "x": "list<float64>[4]"}), {"f": [True] * 3, "x": numbers})
    assert np.shares_memory(np.frombuffer(encode_raw(columns)[-1], np.float64), numbers)
    data = join_raw(encode_raw(columns))
    back = decode_raw(data)["x"]
    assert back.flags.aligned and np.shares_memory(back, np.frombuffer(data, np.uint8))


def test_a_memoryview_at_any_place_is_read():
    columns = Columns.of(Schema.parse({"x": "float64"}), {"x": [1.5, float("nan")]})
    data = memoryview(b"#" + join_raw(encode_raw(columns)))[1:]
    assert repr(decode_raw(data)["x"].tolist()) == "[1.5, nan]"


def test_columns_without_rows_or_fields_come_back():
    empty = Columns.of(Schema.parse({"x": "list<int8>[2]", "s": "string"}), {"x": np.zeros((0, 2), np.int8), "s": []})
    assert decode_raw(join_raw(encode_raw(empty))).rows == 0
    assert decode_raw(join_raw(encode_raw(Columns(Schema(()), {}, 4)))).rows == 4


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes are too few"),
        (b"EPC2" + bytes(12), "does not begin with a head"),
        (b"EPC1" + b"\xff" * 4, "does not begin with a head"),
        (framed(b"{}"), "its head does not read"),
        (framed(b"[1,[[" + b"[" * 100_000), "its head does not read"),
        (framed([-1, []]), "claims -1 rows"),
        (framed([1 << 40, []]), "claims 1099511627776 rows"),
        (framed([1, [["x", "int8", [1], -1]]]), "negative size"),
        (framed([1, [["x", "int9", [1], 1]]], b"\0"), "field 'x': type 'int9'"),
        (framed([1, [["x", "int8", [1], 1], ["x", "int8", [1], 1]]], b"\0\0"), "two columns have one name"),
        (framed([1, [["x", "int8", [1], 2]]], b"\0"), "the buffer of 'x' is cut short"),
        (framed([1, [["x", "int8", [1], 1]]], b"\0\0"), "1 bytes follow"),
        (framed([1, [["x", "int8", [], 1]]], b"\0"), "is not int8"),
        (framed([1, [["x", "list<int8>[2]", [1, 1], 1]]], b"\0"), "of shape \\[1, 1\\] is not list<int8>\\[2\\]"),
        (framed([1, [["x", "string", [1], 1]]], b"\0"), "is not string"),
        (framed([1, [["x", "list<int8>", [1, -1], 1]]], b"\0"), "does not have 1 bytes"),
        (framed([3, [["x", "int8", [2], 2]]], b"\0\0"), "has 2 rows, the head says 3"),
        (framed([0, [["x", "int8", [1], 1]]], b"\0"), "has 1 rows, the head says 0"),
        (framed([1, [["x", "bool", [1], 1]]], b"\2"), "neither 0 nor 1"),
        (framed([1, [["x", "string", None, 3]]], b"[1]"), "row 0 field 'x': expected string, found 1"),
        (framed([1, [["x", "string", None, 2]]], b"{}"), "is not a list of values"),
        (framed([1, [["x", "string", None, 2]]], b"[["), "column 'x' does not read"),
        (framed([1, [["x", "float32?", None, 7]]], b'["Inf"]'), "expected float32, found 'Inf'|expected float32"),
    ],
)
def test_claims_that_do_not_hold_are_refused(data, said):
    with pytest.raises(BadInput, match=said):
        decode_raw(data)
