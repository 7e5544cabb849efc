"""One suite for every encoding: what goes in comes out, and what is damaged is columns or BadInput, nothing else."""

import datetime
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from columns import Columns, Schema, constant, decode_raw, decode_records, encode_raw, encode_records
from columns.arrow import decode_arrow, encode_arrow
from columns.oip_columns import decode_oip, encode_oip
from columns.types import ListOf, Scalar, StructOf
from edgepack.errors import BadInput


@dataclass(frozen=True)
class Encoding:
    name: str
    encode: Callable[[Columns], bytes]
    decode: Callable[[bytes, Schema], Columns]
    has_nan: bool = True
    mutants: int = 3000


def oip_raw(columns: Columns) -> bytes:
    """The length of the JSON stands in a header of HTTP; here in front."""
    body, size = encode_oip(columns, raw=True)
    return struct.pack("<I", size) + body


def from_oip_raw(data: bytes, schema: Schema) -> Columns:
    if len(data) < 4:
        raise BadInput("no length in front")
    return decode_oip(memoryview(data)[4:], schema, struct.unpack_from("<I", data)[0])


ENCODINGS = [
    Encoding("records", lambda c: encode_records(c, "."), decode_records, has_nan=False),
    Encoding("arrow file", lambda c: encode_arrow(c, "file"), decode_arrow),
    Encoding("arrow stream", lambda c: encode_arrow(c, "stream"), decode_arrow),
    Encoding("raw", lambda c: b"".join(encode_raw(c)), lambda data, schema: decode_raw(data)),
    Encoding("oip", lambda c: encode_oip(c, raw=False)[0], decode_oip, has_nan=False),
    Encoding("oip raw", oip_raw, from_oip_raw),
]
each_encoding = pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)

_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_UNITS = {"s": 10**0, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_NAMES = st.sampled_from(["a", "b c", "é", "d-1"])


def scalars():
    stamps = [f"timestamp[{unit}]" for unit in _UNITS]
    names = ["bool", "float16", "float32", "float64", "string", "binary", "date32", *_INTEGERS, *stamps]
    return st.builds(Scalar, st.sampled_from(names), st.booleans())


def types():
    def nested(inner):
        lists = st.builds(ListOf, inner, st.none() | st.integers(1, 3), st.booleans())
        fields = st.dictionaries(_NAMES, inner, min_size=1, max_size=3).map(lambda each: tuple(each.items()))
        return lists | st.builds(StructOf, fields, st.booleans())

    plain = st.sampled_from([Scalar("float32"), Scalar("int64"), Scalar("bool")])
    return st.recursive(scalars() | plain, nested, max_leaves=4)


def scalar_values(type_: Scalar, nan: bool):
    name = type_.name
    if name in _INTEGERS:
        limits = np.iinfo(name)
        return st.integers(int(limits.min), int(limits.max))
    if name.startswith("float"):
        return st.floats(width=int(name[5:]), allow_nan=nan, allow_infinity=nan)
    if name.startswith("timestamp"):
        scale = _UNITS[name[10:-1]]
        seconds = st.integers(-9_000_000_000, 9_000_000_000)
        return st.builds(
            lambda s, part: np.datetime64(s * scale + part, name[10:-1]), seconds, st.integers(0, scale - 1)
        )
    plain = {"bool": st.booleans(), "string": _TEXT, "binary": st.binary(max_size=6), "date32": st.dates()}
    return plain[name]


def values(type_, nan: bool):
    if isinstance(type_, ListOf):
        size = {"max_size": 3} if type_.size is None else {"min_size": type_.size, "max_size": type_.size}
        found = st.lists(values(type_.item, nan), **size)
    elif isinstance(type_, StructOf):
        found = st.fixed_dictionaries({name: values(each, nan) for name, each in type_.fields})
    else:
        found = scalar_values(type_, nan)
    return st.none() | found if type_.nullable else found


@st.composite
def some_columns(draw, nan: bool):
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
    fields = draw(st.dictionaries(names, types(), min_size=1, max_size=3))
    rows = draw(st.integers(1, 4))
    schema = Schema.parse({name: str(type_) for name, type_ in fields.items()})
    lists = {n: draw(st.lists(values(t, nan), min_size=rows, max_size=rows)) for n, t in fields.items()}
    return Columns.of(schema, lists)


def seen(columns: Columns):
    """All that a reader of the columns can tell, NaN equal to NaN and 0.0 apart from -0.0."""
    return columns.rows, [
        (field, str(array.dtype), array.shape, repr(list(array) if array.dtype == object else array.tolist()))
        for field, array in ((str(field), columns.arrays[field.name]) for field in columns.schema)
    ]


@each_encoding
@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_what_is_encoded_comes_back_the_same(encoding, data):
    columns = data.draw(some_columns(encoding.has_nan))
    back = encoding.decode(encoding.encode(columns), columns.schema)
    assert back.schema == columns.schema
    assert seen(back) == seen(columns)


def rich(rows: int = 3) -> Columns:
    """Columns with something of everything."""
    types = {
        "x": "list<float32>[29]", "m": "list<list<int16>[2]>", "flag": "bool", "name": "string", "n": "float64?",
        "ragged": "list<float32>", "blob": "binary", "t": "timestamp[us]", "day": "date32",
        "s": "struct<a: list<string?>, b: float32?>?",
    }  # fmt: skip
    listed = [
        [[0.5 * i for i in range(29)]] * rows, [[[1, 2], [3, 4]]] * rows, [True] * rows, ["ü"] * rows,
        [None, *[1.5] * (rows - 1)], [[1.0] * row for row in range(rows)], [b"\x00"] * rows,
        [np.datetime64(5, "us")] * rows, [datetime.date(2030, 1, 2)] * rows,
        [None, *[{"a": ["z", None], "b": 0.5}] * (rows - 1)],
    ]  # fmt: skip
    return Columns.of(Schema.parse(types), dict(zip(types, listed, strict=True)))


def mutant(body: bytes, chance: random.Random) -> bytes:
    """One to three bytes changed in place; one mutant in four is longer or shorter as well."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case _:
                data[at : at + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x40")
                )
    at = chance.randrange(len(data))
    match chance.randrange(8):
        case 0:
            del data[at : at + chance.choice((1, 4, 64))]
        case 1:
            data[at:at] = chance.randbytes(chance.choice((1, 4, 8)))
    return bytes(data)


@each_encoding
def test_damaged_bytes_are_columns_or_bad_input(encoding):
    columns = rich()
    body, chance, accepted = encoding.encode(columns), random.Random(7), 0
    for _ in range(encoding.mutants):
        try:
            found = encoding.decode(mutant(body, chance), columns.schema)
        except BadInput as refusal:
            assert "\n" not in str(refusal)
        else:
            accepted += 1
            encode_records(found)  # every value is read
    assert 0 < accepted < encoding.mutants


@each_encoding
def test_bytes_cut_short_anywhere_are_refused(encoding):
    columns = rich()
    body = encoding.encode(columns)
    end = body.rindex(b"\xff\xff\xff\xff") if encoding.name == "arrow stream" else len(body)
    for length in {*range(0, end, 7), end - 1}:
        with pytest.raises(BadInput):
            encoding.decode(body[:length], columns.schema)


@each_encoding
def test_constant_columns_come_back_with_every_row(encoding):
    schema = Schema.parse({"v": "string", "k": "list<int64>[2]", "x": "float32"})
    arrays = {
        "v": constant(np.array(["v1"], object), 3),
        "k": constant(np.array([[1, 2]]), 3),
        "x": np.arange(3, dtype=np.float32),
    }
    columns = Columns.of(schema, arrays)
    back = encoding.decode(encoding.encode(columns), schema)
    assert seen(back) == seen(columns)


@each_encoding
def test_fifty_thousand_rows_come_back(encoding):
    schema = Schema.parse({"x": "list<float32>[8]", "k": "int64"})
    numbers = np.random.default_rng(1).normal(size=(50_000, 8)).astype(np.float32)
    columns = Columns.of(schema, {"x": numbers, "k": np.arange(50_000)})
    back = encoding.decode(encoding.encode(columns), schema)
    assert np.array_equal(back["x"], numbers) and back["k"].tolist() == list(range(50_000))
