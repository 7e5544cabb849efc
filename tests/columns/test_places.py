"""Where a body keeps its numbers: only a place whose bytes come out again is one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from columns.arrow import decode_arrow
from columns.places import places_of
from columns.records import decode_records
from columns.schema import Schema
from edgepack.errors import BadInput

SCHEMA = Schema.parse({"x": "list<float32>[3]", "n": "int16"})


def arrow(x, n):
    schema = pa.schema([("x", pa.list_(pa.float32(), 3)), ("n", pa.int16())])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist([{"x": x, "n": n}], schema))
    return sink.getvalue().to_pybytes()


def decode(body):
    return decode_arrow(body, SCHEMA).arrays


def test_numbers_are_found_where_the_decoder_reads_them():
    body = arrow([1.5, -2.25, 3.75], -12345)
    places = places_of(body, decode(body), decode)
    assert set(places) == {"x", "n"}
    begin, stop = places["x"]
    other = body[:begin] + np.array([7, 8, 9], np.float32).tobytes() + body[stop:]
    assert decode(other)["x"].tolist() == [[7, 8, 9]]


def test_numbers_whose_bytes_come_twice_have_no_place():
    body = arrow([0, 0, 0], 0)
    assert places_of(body, decode(body), decode) is None


def test_a_copy_that_the_decoder_does_not_read_is_no_place():
    number = np.array([1.5], np.float32)
    body = number.tobytes() + b"tail"
    assert places_of(body, {"x": number}, lambda body: {"x": number}) is None


def test_numbers_written_as_text_have_no_place():
    body = b'[{"x": [1.5, -2.25, 3.75], "n": 3}]'
    assert places_of(body, decode_records(body, SCHEMA).arrays, lambda b: decode_records(b, SCHEMA).arrays) is None


def test_a_decoder_that_refuses_other_numbers_gives_no_place():
    def picky(body):
        if body != whole:
            raise BadInput("only this one")
        return {"x": number}

    number = np.array([1.5], np.float32)
    whole = b"head" + number.tobytes()
    assert places_of(whole, {"x": number}, picky) is None


def test_truth_values_have_no_place_as_not_every_byte_is_one():
    flags = np.array([True, False, True])
    body = b"head" + flags.tobytes()
    assert places_of(body, {"x": flags}, lambda body: {"x": np.frombuffer(body[4:], bool)}) is None
