import datetime
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from columns import Columns, Schema
from columns.arrow import arrow_type, decode_arrow, encode_arrow, read_parquet, schema_from_arrow
from columns.types import SCALARS, parse_type
from edgepack.errors import BadInput


def body(arrays, form="stream", **options):
    table = pa.table(arrays)
    sink = pa.BufferOutputStream()
    writer = (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)
    )
    with writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue().to_pybytes()


def decode(array, type_, **options):
    return decode_arrow(body({"v": array}, **options), Schema.parse({"v": type_}))["v"]


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_batches_of_both_forms_are_read_as_one(form, compression):
    array = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32()))
    found = decode(array, "list<float32>[2]", form=form, compression=compression)
    assert found.dtype == np.float32 and found.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_tensor_is_not_copied():
    columns = Columns.of(Schema.parse({"x": "list<float64>[2]"}), {"x": np.ones((3, 2))})
    data = encode_arrow(columns)
    assert np.shares_memory(decode_arrow(data, columns.schema)["x"], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    ("array", "type_", "values"),
    [
        (pa.array([[1], [2]], pa.large_list(pa.int32())), "list<int64>[1]", [[1], [2]]),
        (pa.array([1, 2], pa.int8()), "float32", [1.0, 2.0]),
        (pa.array([1, 2], pa.float32()), "float64", [1.0, 2.0]),
        (pa.array(["a", "b"], pa.large_string()), "string", ["a", "b"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string", ["a", "b", "a"]),
        (pa.array([3, 4, 3]).dictionary_encode(), "int64", [3, 4, 3]),
        (pa.array([datetime.time(1, 2, 3)], pa.time32("s")), "string", ["01:02:03"]),
        (pa.array([True, False, True])[1:], "bool", [False, True]),
        (pa.array([[1], [2, 3], [4, 5]])[1:], "list<int64>[2]", [[2, 3], [4, 5]]),
        (pa.array([[[1], [2]], [[3], [4]]]), "list<list<int64>[1]>[2]", [[[1], [2]], [[3], [4]]]),
        (pa.array([[], []], pa.list_(pa.float32())), "list<float32>", [[], []]),
        (pa.array([{"b": 1, "a": None}]), "struct<a: string?, b: int64>", None),
    ],
)
def test_types_that_hold_the_same_values_exactly_are_taken(array, type_, values):
    if pa.types.is_struct(array.type):
        array = pa.array([{"b": 1, "a": None}], pa.struct([("b", pa.int64()), ("a", pa.string())]))
        values = [{"a": None, "b": 1}]
    assert decode(array, type_).tolist() == values


@pytest.mark.parametrize(
    ("array", "type_", "said"),
    [
        (pa.array([[1.5]]), "list<float32>[1]", "field 'v' is list<float64>, the schema says list<float32>"),
        (pa.array([1]), "int32", "field 'v' is int64, the schema says int32"),
        (pa.array([True]), "int8", "field 'v' is bool, the schema says int8"),
        (pa.array([1], pa.timestamp("s")), "timestamp[ms]", "is timestamp\\[s\\], the schema says"),
        (pa.array([[1]], pa.list_(pa.int8(), 1)), "list<int8>[2]", "is list<int8>\\[1\\]"),
        (pa.array([[1, 2], [3]]), "list<int64>[2]", "row 1 field 'v': expected list<int64>\\[2\\], found a list of 1"),
        (pa.array([1, None]), "int64", "row 1 field 'v': expected int64, found null"),
        (pa.array([[1, None]]), "list<int64>", "row 0 field 'v\\[1\\]': expected int64, found null"),
        (pa.array([1, 2], pa.int64())[:0], "int64", "has 0 rows"),
        (pa.array([None]), "string", "field 'v' is null, which edgepack does not take"),
        (pa.array(["a"], pa.string_view()), "string", "is string_view, which edgepack does not take"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "string", "is map<"),
        (pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), [1]), pa.array([[1]], pa.list_(pa.int8(), 1))),
         "list<int8>[1]", "is extension<"),
        (pa.array([[7, 7]], pa.list_(pa.dictionary(pa.int8(), pa.int32()))), "list<int32>", "is dictionary<"),
        (pa.array([2**62], pa.timestamp("s")), "timestamp[s]", "row 0 field 'v': expected timestamp"),
        (pa.array([2**31 - 1], pa.date32()), "date32", "row 0 field 'v': expected a date"),
    ],
)  # fmt: skip
def test_other_types_and_values_are_refused_by_name(array, type_, said):
    with pytest.raises(BadInput, match=said):
        decode(array, type_)


def test_unknown_missing_and_doubled_fields_are_refused():
    with pytest.raises(BadInput, match="the Arrow body has an unknown field 'w': the schema has 'v'"):
        decode_arrow(body({"v": [1], "w": [1]}), Schema.parse({"v": "int64"}))
    with pytest.raises(BadInput, match="the Arrow body has no field 'w': expected int8"):
        decode_arrow(body({"v": [1]}), Schema.parse({"v": "int64", "w": "int8"}))
    twice = pa.table([pa.array([1]), pa.array([1])], names=["v", "v"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, twice.schema) as writer:
        writer.write_table(twice)
    with pytest.raises(BadInput, match="two fields 'v'"):
        decode_arrow(sink.getvalue().to_pybytes(), Schema.parse({"v": "int64"}))


def test_a_compressed_body_that_unpacks_to_too_much_is_refused_before_it_is_unpacked():
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"v": pa.array(np.zeros(4_000_000))})
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for _ in range(9):
            writer.write_batch(batch)
    bomb = sink.getvalue().to_pybytes()
    assert len(bomb) < 1 << 20
    before = pa.total_allocated_bytes()
    with pytest.raises(BadInput, match="unpacks to over 268435456 bytes: send fewer rows"):
        decode_arrow(bomb, Schema.parse({"v": "float64"}))
    assert pa.total_allocated_bytes() <= before


def test_a_dictionary_that_says_one_huge_value_many_times_is_refused():
    indices = pa.array(np.zeros(3000, np.int8))
    array = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 100_000]))
    table = pa.table({"v": array})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(BadInput, match="field 'v' unpacks to over"):
        decode_arrow(sink.getvalue().to_pybytes(), Schema.parse({"v": "string"}))


def test_delta_dictionaries_are_refused():
    sink = pa.BufferOutputStream()
    first = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a"]))
    second = pa.DictionaryArray.from_arrays(pa.array([1]), pa.array(["a", "b"]))
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, pa.schema([("v", first.type)]), options=options) as writer:
        writer.write_batch(pa.record_batch([first], names=["v"]))
        writer.write_batch(pa.record_batch([second], names=["v"]))
    with pytest.raises(BadInput, match="has a delta dictionary"):
        decode_arrow(sink.getvalue().to_pybytes(), Schema.parse({"v": "string"}))


def test_a_file_cut_short_or_with_a_false_footer_is_refused():
    data = body({"v": [1]}, form="file")
    with pytest.raises(BadInput, match="cut short"):
        decode_arrow(data[:-1])
    with pytest.raises(BadInput, match="claims a footer of"):
        decode_arrow(data[:-10] + b"\xff\xff\xff\x7f" + data[-6:])
    for nothing in (b"", b"hello", b"ARROW1", b'[{"v":1}]'):
        with pytest.raises(BadInput):
            decode_arrow(nothing)


@pytest.mark.parametrize("text", [*SCALARS, "list<float32>[2]", "list<list<string>>", "struct<a: int8, b: list<bool>>"])
def test_every_type_has_an_arrow_type_that_reads_back(text):
    schema = pa.schema([("v", arrow_type(parse_type(text)))])
    assert schema_from_arrow(schema).to_dict() == {"v": text}
    assert schema_from_arrow(schema.serialize().to_pybytes()).to_dict() == {"v": text}


def test_a_schema_that_is_none_is_refused():
    for wrong in (b"", b"\xff\xff\xff\xff\0\0\0\0", 7, pa.schema([("v", pa.decimal128(5, 2))])):
        with pytest.raises(BadInput):
            schema_from_arrow(wrong)


def test_parquet_is_read_with_its_own_schema_or_a_given_one(tmp_path):
    path = tmp_path / "golden.parquet"
    parquet.write_table(pa.table({"x": pa.array([[1.0, 2.0]], pa.list_(pa.float32())), "s": ["a"]}), path)
    assert read_parquet(path).schema.to_dict() == {"x": "list<float32>", "s": "string"}
    given = read_parquet(path, Schema.parse({"s": "string", "x": "list<float32>[2]"}))
    assert given["x"].shape == (1, 2) and given["s"].tolist() == ["a"]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadInput, match="file 'golden\\.parquet' is not Arrow data"):
        read_parquet(path)


def child(code):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_nothing_here_imports_pandas_and_only_arrow_imports_pyarrow():
    child("""
        import importlib.abc, sys
        sys.path.insert(0, ".")
        import columns
        assert "pyarrow" not in sys.modules
        class Refuse(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                assert name.partition(".")[0] != "pandas", "pandas is asked for"
        sys.meta_path.insert(0, Refuse())
        from columns import Columns, Schema
        from columns.arrow import decode_arrow, encode_arrow
        schema = Schema.parse({"a": "list<float32>[2]", "b": "string?", "c": "timestamp[ns]", "d": "list<bool>",
                               "e": "struct<x: float16?, y: date32>"})
        columns = Columns.of(schema, {"a": [[1, 2]], "b": [None], "c": ["2030-01-01T00:00:00.123456789"],
                                      "d": [[True]], "e": [{"x": 1.5, "y": "2030-01-01"}]})
        for form in ("file", "stream"):
            assert decode_arrow(encode_arrow(columns, form), schema)["c"][0] == columns["c"][0]
    """)


def test_a_missing_pyarrow_says_what_to_install():
    child("""
        import sys
        sys.path.insert(0, ".")
        sys.modules["pyarrow"] = None
        from edgepack.errors import BadInput
        try:
            import columns.arrow
        except BadInput as refusal:
            assert "pip install" in str(refusal)
        else:
            raise AssertionError
    """)


@pytest.mark.parametrize(
    "array, type_, expected",
    [
        (pa.nulls(2), "int32?", [None, None]),
        (pa.nulls(2), "list<float32>?", [None, None]),
        (pa.array([[None], []]), "list<float32?>", [[None], []]),
        (pa.array([[None], None]), "list<float32?>?", [[None], None]),
    ],
)
def test_nulls_alone_have_the_type_of_their_field(array, type_, expected):
    """pandas and Arrow give such a column no type: the schema does."""
    found = decode_arrow(body({"v": array, "w": [1.0, 2.0]}), Schema.parse({"v": type_, "w": "float64"}))
    assert found["v"].tolist() == expected and found["w"].tolist() == [1, 2]
