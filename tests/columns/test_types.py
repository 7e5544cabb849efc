import numpy as np
import pytest

from columns import ListOf, Scalar, StructOf, parse_type
from columns.types import SCALARS, scalars_of
from edgepack.errors import BadInput


@pytest.mark.parametrize("name", SCALARS)
def test_each_primitive_name_reads_as_itself_and_nullable(name):
    assert parse_type(name) == Scalar(name)
    assert str(parse_type(f" {name} ? ")) == f"{name}?"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("float", "float32"),
        ("double", "float64"),
        ("halffloat", "float16"),
        ("utf8", "string"),
        ("date32[day]", "date32"),
        ("time32[s]", "string"),
        ("time64[ns]", "string"),
        ("timestamp[us, tz=Europe/Berlin]", "timestamp[us]"),
        ("list< list<double>[3] ? >", "list<list<float64>[3]?>"),
        ("struct<a:float,b b:list<string?>>?", "struct<a: float32, b b: list<string?>>?"),
        ("list<struct<x: struct<y: bool>>>[2]", "list<struct<x: struct<y: bool>>>[2]"),
    ],
)
def test_a_type_is_written_in_one_canonical_way(text, canonical):
    assert str(parse_type(text)) == canonical
    assert str(parse_type(canonical)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a type"),
        ("floaty", "no type 'floaty'"),
        ("null", "no type 'null'"),
        ("decimal128[3]", "a size follows a list|no type"),
        ("float32[13]", "a size follows a list, as in list<float32>\\[13\\]"),
        ("list<float32", "at its end: expected '>'"),
        ("list<>", "expected a type"),
        ("list", "expected '<'"),
        ("list<float32>[0]", "a list's size is 1"),
        ("list<float32>[9999999999]", "a list's size is 1"),
        ("list<float32>[-1]", "expected nothing more"),
        ("float32??", "expected nothing more"),
        ("struct<>", "expected a struct field"),
        ("struct<a: int8, a: int8>", "two fields 'a'"),
        ("list<" * 5000 + "int8" + ">" * 5000, "at most 32 levels"),
    ],
)
def test_a_type_that_does_not_read_is_refused_in_one_line(text, said):
    with pytest.raises(BadInput, match=said) as refusal:
        parse_type(text)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500


def test_nested_lists_of_numbers_are_tensors_and_all_else_is_not():
    assert parse_type("int8").tensor_dtype_and_shape() == (np.int8, ())
    assert parse_type("list<list<float32>[5]>").tensor_dtype_and_shape() == (np.float32, (None, 5))
    for text in ("string", "int8?", "list<int8?>", "list<int8>?", "date32", "timestamp[ms]", "struct<a: int8>"):
        assert parse_type(text).tensor_dtype_and_shape() is None


def test_types_are_values():
    struct = StructOf((("a", ListOf(Scalar("int8"), 3)),))
    assert parse_type("struct<a: list<int8>[3]>") == struct and hash(struct) == hash(parse_type(str(struct)))
    assert [each.name for each in scalars_of(struct)] == ["int8"]
