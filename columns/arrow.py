"""Arrow: IPC file and stream, Arrow schemas and Parquet. Nothing outside this room imports pyarrow.

What comes from outside is looked at in this order: framing, the claims of each message (`columns.ipc`), the
schema, then `validate(full=True)`, and only then a value: without it one mutated message in ten killed the
process. A file is read as the stream that lies between its magic and its footer, so that there is one path
to guard.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from columns._pyarrow import pa
from columns.columns import MAX_ROWS, Columns
from columns.from_arrow import from_arrow
from columns.ipc import MAX_UNPACKED_BYTES, unpacked_bytes
from columns.schema import Field, Schema
from columns.to_arrow import arrow_type, to_arrow
from columns.types import ListOf, Scalar, StructOf, Type, clip, parse_type
from edgepack.errors import BadInput

__all__ = [
    "ARROW_FILE",
    "ARROW_STREAM",
    "arrow_type",
    "decode_arrow",
    "encode_arrow",
    "read_parquet",
    "schema_from_arrow",
]

ARROW_FILE = "application/vnd.apache.arrow.file"
ARROW_STREAM = "application/vnd.apache.arrow.stream"

_MAGIC = b"ARROW1"
_HEAD_SIZE = 8  # the magic, padded
_FAULTS = (pa.ArrowException, OSError, ValueError, KeyError, NotImplementedError, OverflowError, MemoryError)


def decode_arrow(body: bytes | bytearray | memoryview, schema: Schema | None = None) -> Columns:
    """Read an IPC file or stream, told apart by its magic. Without a schema the body's own is taken.

    Tensors lie in `body` without a copy. Numbers may be of a narrower type than the schema's; nothing is
    rounded. Raises BadInput that names the field.
    """
    with _refusals("body"):
        stream = pa.py_buffer(_stream(memoryview(body).cast("B")))
        _check_messages(stream)
        with pa.ipc.open_stream(stream) as reader:
            wanted = _check_schema(_nulls_typed(reader.schema, schema), schema)
            return _from_table(reader.read_all(), wanted)


def encode_arrow(columns: Columns, form: Literal["file", "stream"] = "file") -> bytes:
    """Write the columns as one batch."""
    schema = pa.schema([(field.name, arrow_type(field.type)) for field in columns.schema])
    arrays = [to_arrow(field, columns.arrays[field.name]) for field in columns.schema]
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    written: bytes = sink.getvalue().to_pybytes()
    return written


def read_parquet(path: Path, schema: Schema | None = None) -> Columns:
    """Read a Parquet file of a project. Without a schema the file's own is taken. Raises BadInput."""
    import pyarrow.parquet as parquet  # not needed on a device

    with _refusals(f"file '{path.name}'"):
        table = parquet.ParquetFile(path).read()
        return _from_table(table, _check_schema(table.schema, schema))


def schema_from_arrow(schema: Any) -> Schema:
    """The schema of a `pyarrow.Schema` or its bytes. Raises BadInput for a type edgepack does not have.

    Nullability is not taken over: Arrow fields are nullable unless somebody said otherwise, and hardly
    anybody does.
    """
    if isinstance(schema, (bytes, bytearray, memoryview)):
        with _refusals("schema"):
            schema = pa.ipc.read_schema(pa.py_buffer(schema))
    if not isinstance(schema, pa.Schema):
        raise BadInput(f"a {type(schema).__name__} is no Arrow schema: expected pyarrow.Schema or its bytes")
    return Schema(tuple(Field(field.name, _own_type(field.type, field.name)) for field in schema))


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        reason = clip(str(error).strip().partition("\n")[0] or type(error).__name__, 200)
        raise BadInput(f"the {what} is not Arrow data that can be read: {reason}") from error


def _stream(view: memoryview) -> memoryview:
    """The stream itself: of a file what lies between magic and footer."""
    if view[: len(_MAGIC)] != _MAGIC:
        return view
    tail = 4 + len(_MAGIC)
    if len(view) < _HEAD_SIZE + tail or view[-len(_MAGIC) :] != _MAGIC:
        raise BadInput("the Arrow file is cut short: its last bytes are not ARROW1")
    footer = int.from_bytes(view[-tail : -len(_MAGIC)], "little")
    if footer > len(view) - tail - _HEAD_SIZE:
        raise BadInput(f"the Arrow file is damaged: it claims a footer of {footer} bytes")
    return view[_HEAD_SIZE : len(view) - tail - footer]


def _check_messages(stream: Any) -> None:
    unpacked = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        body = b"" if message.body is None else message.body
        unpacked += unpacked_bytes(memoryview(message.metadata), memoryview(body))
        if unpacked > MAX_UNPACKED_BYTES:
            raise BadInput(f"the Arrow body unpacks to over {MAX_UNPACKED_BYTES} bytes: send fewer rows")


def _check_schema(found: Any, wanted: Schema | None) -> Schema:
    own = schema_from_arrow(found)
    if wanted is None:
        return own
    wanted.check_names(own.names, "the Arrow body")
    for field in wanted:
        if not _fits(own[field.name].type, field.type):
            said = f"field '{field.name}' is {own[field.name].text}, the schema says {field.text}: cast it"
            raise BadInput(said, field=field.name)
    return wanted


def _own_type(found: Any, name: str) -> Type:
    """Our type of a column. A dictionary is taken for a whole column only, not inside lists and structs."""
    values = found.value_type if pa.types.is_dictionary(found) else found
    return _nested_type(values, clip(name))


def _nested_type(found: Any, name: str) -> Type:
    kind = pa.types
    if kind.is_fixed_size_list(found) and found.list_size > 0:
        return ListOf(_nested_type(found.value_type, name), found.list_size)
    if kind.is_list(found) or kind.is_large_list(found):
        return ListOf(_nested_type(found.value_type, name))
    if kind.is_struct(found):
        fields = {each.name: _nested_type(each.type, name) for each in found}
        if len(fields) == found.num_fields:
            return StructOf(tuple(fields.items()))
    if not kind.is_nested(found) and not isinstance(found, pa.BaseExtensionType):
        try:
            return parse_type(str(found))
        except BadInput:
            pass  # said below, with the field
    said = f"field '{name}' is {clip(str(found))}, which edgepack does not take"
    raise BadInput(f"{said}: send numbers, text, lists or structs", field=name)


def _fits(found: Type, wanted: Type) -> bool:
    """Whether values of the found type are values of the wanted one, free lengths permitting."""
    if isinstance(found, ListOf) and isinstance(wanted, ListOf):
        sizes_fit = None in (found.size, wanted.size) or found.size == wanted.size
        return sizes_fit and _fits(found.item, wanted.item)
    if isinstance(found, StructOf) and isinstance(wanted, StructOf):
        own, asked = dict(found.fields), dict(wanted.fields)
        return own.keys() == asked.keys() and all(_fits(own[name], asked[name]) for name in asked)
    if not isinstance(found, Scalar) or not isinstance(wanted, Scalar):
        return False
    if found.dtype is None or wanted.dtype is None or "b" in (found.dtype.kind, wanted.dtype.kind):
        return found.name == wanted.name
    return np.can_cast(found.dtype, wanted.dtype, "safe")


def _nulls_typed(found: Any, wanted: Schema | None) -> Any:
    """The body's schema; a column or list of nulls alone, which Arrow writes without a type, has that of the field."""
    if wanted is None:
        return found
    types = ((each, wanted[each.name].type if each.name in wanted else None) for each in found)
    return pa.schema(
        [each if type_ is None else each.with_type(_null_typed(each.type, type_)) for each, type_ in types]
    )


def _null_typed(found: Any, wanted: Type) -> Any:
    if pa.types.is_null(found) and wanted.nullable:
        return arrow_type(wanted)
    if pa.types.is_list(found) and isinstance(wanted, ListOf):
        return pa.list_(_null_typed(found.value_type, wanted.item))
    return found


def _from_table(table: Any, schema: Schema) -> Columns:
    table.validate(full=True)
    typed = _nulls_typed(table.schema, schema)
    if not typed.equals(table.schema):
        table = table.cast(typed)
    if not 1 <= table.num_rows <= MAX_ROWS:
        raise BadInput(f"the Arrow body has {table.num_rows} rows: expected 1 to {MAX_ROWS}")
    arrays = {field.name: from_arrow(field, table.column(field.name)) for field in schema}
    return Columns(schema, arrays, table.num_rows)
