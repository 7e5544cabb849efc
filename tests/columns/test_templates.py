"""Encodings from templates: byte for byte what the encoder gives."""

from __future__ import annotations

import numpy as np
import pytest

from columns.arrow import encode_arrow
from columns.columns import Columns, constant
from columns.raw import encode_raw, join_raw
from columns.records import encode_records
from columns.schema import Schema
from columns.templates import Stencil, Templates
from columns.values import object_array

SCHEMA = Schema.parse(
    {
        "time": "int64",
        "in.x": "list<float32>[29]",
        "in.free": "list<float64>",
        "out.y": "float16",
        "anomaly.count": "uint32",
        "anomaly.high": "bool",
        "metadata.name": "string",
        "metadata.dropped": "list<string>",
        "metadata.request_id": "string",
    }
)
NAME, DROPPED = object_array(["modèle"]), object_array([[]])
ENCODERS = {
    "raw": lambda columns: join_raw(encode_raw(columns)),
    "file": lambda columns: encode_arrow(columns, "file"),
    "stream": lambda columns: encode_arrow(columns, "stream"),
}


def result(seed, rows=1, width=2, request_id="line-4/000017"):
    chance = np.random.default_rng(seed)
    arrays = {
        "time": constant(np.array([seed * 10**12]), rows),
        "in.x": chance.normal(size=(rows, 29)).astype(np.float32),
        "in.free": chance.normal(size=(rows, width)),
        "out.y": chance.normal(size=rows).astype(np.float16),
        "anomaly.count": chance.integers(0, 3, rows).astype(np.uint32),
        "anomaly.high": chance.random(rows) > 0.5,
        "metadata.name": constant(NAME, rows),
        "metadata.dropped": constant(DROPPED, rows),
        "metadata.request_id": object_array([request_id] * rows),
    }
    return Columns(SCHEMA, arrays, rows)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_row_is_encoded_as_the_encoder_does_and_without_it(encoder):
    calls = []
    templates = Templates(lambda c: (calls.append(1), ENCODERS[encoder](c))[1], varying=("metadata.request_id",))
    for seed in range(40):
        columns = result(seed, width=1 + seed % 2, request_id=["a" * 36, "é", 'quo"te', "b" * 36][seed % 4])
        assert templates.encode(columns) == ENCODERS[encoder](columns)
    learned = len(calls)
    for seed in range(20):
        columns = result(seed, width=1, request_id=f"{seed:036d}")
        assert templates.encode(columns) == ENCODERS[encoder](columns)
    if encoder == "raw":
        assert len(calls) == learned  # text of any content, as long as its length is known


@pytest.mark.parametrize("encoder", ["file", "stream", "raw"])
@pytest.mark.parametrize("rows", [2, 7, 8, 9, 64, 65])
def test_several_rows_are_encoded_as_the_encoder_does(encoder, rows):
    templates = Templates(ENCODERS[encoder])
    fewer = SCHEMA.names[:-1]
    schema = Schema(tuple(SCHEMA[name] for name in fewer))
    for seed in range(8):
        columns = result(seed, rows)
        columns = Columns(schema, {name: columns.arrays[name] for name in fewer}, rows)
        assert templates.encode(columns) == ENCODERS[encoder](columns)


def test_text_that_changes_is_left_to_the_encoder():
    templates = Templates(ENCODERS["stream"])
    for seed in range(10):
        columns = result(seed, request_id=f"request {seed}")
        assert templates.encode(columns) == ENCODERS["stream"](columns)


def test_lists_of_other_lengths_are_left_to_the_encoder():
    schema = Schema.parse({"x": "list<float32>"})
    templates = Templates(ENCODERS["stream"])
    for seed in range(10):
        columns = Columns(schema, {"x": object_array([[1.0] * (seed % 3), [2.0]])}, 2)
        assert templates.encode(columns) == ENCODERS["stream"](columns)


def test_the_number_of_templates_is_bounded():
    templates = Templates(ENCODERS["raw"], varying=("metadata.request_id",))
    for length in range(1, 120):
        for seed in range(4):
            templates.encode(result(seed, request_id="x" * length, width=1 + seed % 3))
    assert len(templates._templates) <= 4 * 64


VARYING = ("time", "in.x", "out.y")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_stencil_filled_with_other_numbers_is_what_the_encoder_gives(encoder):
    encode = ENCODERS[encoder]
    stencil = Stencil.of(encode, result(1), VARYING)
    other = Columns(SCHEMA, {**result(1).arrays, **{name: result(2).arrays[name] for name in VARYING}}, 1)
    pieces = stencil.pieces.copy()
    pieces[1::2] = [other.arrays[name].tobytes() for name in stencil.names]
    assert set(stencil.names) == set(VARYING)
    assert b"".join(pieces) == encode(other)


def test_a_stencil_leaves_out_columns_that_are_not_written():
    stencil = Stencil.of(lambda columns: ENCODERS["stream"](columns.select(["out.y", "time"])), result(1), VARYING)
    assert set(stencil.names) == {"time", "out.y"}


def test_numbers_written_as_text_have_no_stencil():
    assert Stencil.of(encode_records, result(1), VARYING) is None
