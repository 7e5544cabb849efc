import pytest

from columns import Field, Schema, parse_type
from edgepack.errors import BadInput


def test_a_schema_keeps_order_and_comes_back_from_its_dict():
    schema = Schema.parse({"b": "double", "a": "list<float>[2]"})
    assert schema.names == ("b", "a") and len(schema) == 2 and "a" in schema and "c" not in schema
    assert schema.to_dict() == {"b": "float64", "a": "list<float32>[2]"}
    assert Schema.parse(schema.to_dict()) == schema == Schema.of(schema)
    assert schema["a"] == Field("a", parse_type("list<float32>[2]"))


def test_a_type_that_does_not_read_names_its_field():
    with pytest.raises(BadInput, match="field 'x': type 'flot' does not read") as refusal:
        Schema.parse({"x": "flot"})
    assert refusal.value.field == "x"


def test_names_that_are_unknown_missing_empty_or_doubled_are_refused():
    schema = Schema.parse({"a": "int8", "b": "int8"})
    with pytest.raises(BadInput, match="no field 'c': there is 'a', 'b'"):
        schema["c"]
    with pytest.raises(BadInput, match="row 3 has an unknown field 'z': the schema has 'a', 'b'"):
        schema.check_names(["a", "z"], "row 3")
    with pytest.raises(BadInput, match="row 3 has no field 'b': expected int8"):
        schema.check_names(["a"], "row 3")
    with pytest.raises(BadInput, match="two fields 'a'"):
        Schema((schema["a"], schema["a"]))
    with pytest.raises(BadInput, match="without a name"):
        Schema.parse({"": "int8"})


def test_a_wide_schema_is_listed_in_part():
    wide = Schema.parse({f"f{index}": "int8" for index in range(500)})
    assert wide.listing.endswith("'f11' and 488 more")
