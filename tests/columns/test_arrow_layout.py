"""Bodies read in place: the same columns as the slow way gives (damaged ones: test_mutants_of_arrow.py)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from columns.arrow import decode_arrow
from columns.arrow_layout import Layouts
from columns.schema import Schema
from edgepack.errors import BadInput

SCHEMA = Schema.parse({"x": "list<float32>[3]", "n": "int64"})


def body(rows=2, seed=0, form=pa.ipc.new_stream, lists=None, **options):
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(rows, 3)).astype(np.float32)
    schema = pa.schema([("x", lists or pa.list_(pa.float32(), 3)), ("n", pa.int64())])
    sink = pa.BufferOutputStream()
    with form(sink, schema, **options) as writer:
        table = {"x": values.tolist(), "n": chance.integers(0, 99, rows).tolist()}
        writer.write_table(pa.table(table, schema=schema))
    return sink.getvalue().to_pybytes()


class Counted:
    """The slow way, counting."""

    def __init__(self):
        self.calls = 0

    def __call__(self, data, schema):
        self.calls += 1
        return decode_arrow(data, schema)


def same(found, expected):
    assert found.rows == expected.rows
    for name in SCHEMA.names:
        assert np.array_equal(found.arrays[name], expected.arrays[name])
        assert found.arrays[name].dtype == expected.arrays[name].dtype


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("lists", [pa.list_(pa.float32(), 3), pa.list_(pa.float32()), pa.large_list(pa.float32())])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bodies_after_the_first_are_read_in_place(form, lists, kind):
    slow = Counted()
    layouts = Layouts(slow)
    for seed in range(5):
        data = kind(body(seed=seed, form=form, lists=lists))
        same(layouts.decode(data, SCHEMA), decode_arrow(data, SCHEMA))
    assert slow.calls == 1


def test_other_row_counts_and_schemas_have_layouts_of_their_own():
    slow = Counted()
    layouts = Layouts(slow)
    for rows in (1, 2, 3, 1, 2, 3):
        same(layouts.decode(body(rows, seed=rows), SCHEMA), decode_arrow(body(rows, seed=rows), SCHEMA))
    assert slow.calls == 3
    with pytest.raises(BadInput):
        layouts.decode(body(1), Schema.parse({"x": "list<float32>[3]", "other": "int64"}))


@pytest.mark.parametrize("options", [{"options": pa.ipc.IpcWriteOptions(compression="lz4")}])
def test_what_does_not_lie_in_the_body_as_it_is_stays_with_the_slow_way(options):
    slow = Counted()
    layouts = Layouts(slow)
    for seed in range(3):
        data = body(seed=seed, **options)
        same(layouts.decode(data, SCHEMA), decode_arrow(data, SCHEMA))
    narrow = Schema.parse({"x": "list<float64>[3]", "n": "int64"})
    for _ in range(3):
        assert layouts.decode(body(), narrow).arrays["x"].dtype == np.float64
    assert slow.calls == 6


def test_the_number_of_layouts_kept_is_bounded():
    layouts = Layouts(decode_arrow)
    for rows in range(1, 200):
        layouts.decode(body(rows), SCHEMA)
    assert len(layouts._known) <= 64
