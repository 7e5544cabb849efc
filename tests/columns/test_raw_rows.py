"""Blocks of rows that differ in few columns: what `encode_raw` makes of the same rows, for any number of them."""

from __future__ import annotations

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from columns.columns import Columns
from columns.raw import decode_raw, encode_raw, join_raw
from columns.raw_rows import RawRows
from columns.schema import Schema
from columns.values import object_array

SCHEMA = Schema.parse(
    {
        "time": "int64",
        "in.x": "list<float32>[3]",
        "out.y": "uint8",
        "metadata.name": "string",
        "metadata.dropped": "list<string>",
        "metadata.id": "string",
    }
)
VARYING = ("metadata.id", "in.x", "time", "out.y")


def row(x=(1, 2, 3), y=7, time=1, id="a-01", name="modèle"):
    arrays = {
        "time": np.array([time]),
        "in.x": np.array([x], np.float32),
        "out.y": np.array([y], np.uint8),
        "metadata.name": object_array([name]),
        "metadata.dropped": object_array([[]]),
        "metadata.id": object_array([id]),
    }
    return Columns(SCHEMA, arrays, 1)


def values(columns):
    return tuple(
        columns.arrays[name][0].encode() if name == "metadata.id" else columns.arrays[name].tobytes()
        for name in VARYING
    )


@given(
    st.lists(
        st.tuples(
            st.tuples(*[st.floats(width=32, allow_nan=False)] * 3),
            st.integers(0, 255),
            st.integers(-(2**63), 2**63 - 1),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_a_block_holds_what_its_rows_hold(found):
    rows = [row(x, y, time, f"b-{index:02}") for index, (x, y, time) in enumerate(found)]
    block = decode_raw(RawRows(row(), VARYING).encode([values(each) for each in rows]))
    whole = Columns.concat(rows)
    assert block.schema == whole.schema
    assert block.rows == len(rows)
    for name in SCHEMA.names:
        assert block.arrays[name].tolist() == whole.arrays[name].tolist()


def test_one_row_is_encoded_as_ever():
    assert RawRows(row(), VARYING).encode([values(row())]) == join_raw(encode_raw(row()))


def test_text_goes_in_as_json_writes_it():
    rows = [row(id=id) for id in ('quo"te', "modèle")]
    assert [len(orjson.dumps(id)) for id in ('quo"te', "modèle")] == [9, 9]
    block = RawRows(rows[0], VARYING).encode(
        [(orjson.dumps(each.arrays["metadata.id"][0])[1:-1], *values(each)[1:]) for each in rows]
    )
    assert decode_raw(block).arrays["metadata.id"].tolist() == ['quo"te', "modèle"]
