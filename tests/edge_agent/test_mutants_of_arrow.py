"""Damaged Arrow before every kind of layout that is read in place: it ends as it does on the slow, validating way."""

from __future__ import annotations

import os
import random

import numpy as np
import pyarrow as pa
import pytest

from columns.arrow import decode_arrow
from columns.arrow_layout import Layouts
from columns.schema import Schema
from edgepack.errors import BadInput
from tests.faults.mutants import damaged

MUTANTS = int(os.environ.get("EDGEPACK_ARROW_MUTANTS", "500"))  # of each kind
KINDS = {
    "fixed lists": ("list<float32>[3]", pa.list_(pa.float32(), 3)),
    "free lists": ("list<float32>[3]", pa.list_(pa.float32())),
    "large lists": ("list<float32>[3]", pa.large_list(pa.float32())),
    "lists of a free length": ("list<int16>", pa.list_(pa.int16())),
    "lists of lists": ("list<list<float64>[2]>[2]", pa.list_(pa.list_(pa.float64(), 2), 2)),
    "scalars": ("uint8", pa.uint8()),
    "half floats": ("float16", pa.float16()),
    "flags": ("bool", pa.bool_()),
    "text": ("string", pa.string()),
    "dictionary": ("string", pa.dictionary(pa.int8(), pa.string())),
    "widened": ("float64", pa.float32()),
}
LISTS = {"lists of lists": [[1.5, 2.0], [3.0, -4.0]]}
ONES = {"scalars": 7, "half floats": np.float16(1.5), "flags": True, "text": "aé", "dictionary": "aé", "widened": 0.5}


def body(kind, rows, form, seed, **options):
    chance = random.Random(seed)
    schema = pa.schema([("x", KINDS[kind][1]), ("n", pa.int64())])
    value = ONES.get(kind, LISTS.get(kind, [1, 2, 3]))
    table = pa.table({"x": [value] * rows, "n": [chance.randrange(99) for _ in range(rows)]}, schema=schema)
    sink = pa.BufferOutputStream()
    with form(sink, schema, **options) as writer:
        writer.write_table(table, max_chunksize=2 if options else None)
    return sink.getvalue().to_pybytes()


def outcome(decode, data, schema):
    try:
        columns = decode(data, schema)
    except BadInput as error:
        assert "\n" not in str(error)
        return str(error)
    found = {name: columns.arrays[name] for name in schema.names}
    return {name: array.tolist() if array.dtype == object else array.tobytes() for name, array in found.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
def test_a_damaged_body_ends_as_it_does_on_the_slow_way(kind, form):
    schema = Schema.parse({"x": KINDS[kind][0], "n": "int64"})
    layouts, chance = Layouts(decode_arrow), random.Random(f"{kind} {form.__name__}")
    packed = {"options": pa.ipc.IpcWriteOptions(compression="lz4")}
    goods = [body(kind, rows, form, seed) for rows in (1, 2, 5) for seed in (0, 1)]
    goods.append(body(kind, 5, form, 2, **packed))
    for good in goods:
        layouts.decode(good, schema)
    accepted = 0
    for _ in range(MUTANTS):
        good = chance.choice(goods)
        data = damaged(good, chance)
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data) + 1)]
        kindly = bytearray(data) if chance.random() < 0.5 else data
        found = outcome(layouts.decode, kindly, schema)
        assert found == outcome(decode_arrow, data, schema), data
        accepted += isinstance(found, dict)
        assert isinstance(outcome(layouts.decode, good, schema), dict)  # the cache still knows the right ones
    assert 0 < accepted < MUTANTS
