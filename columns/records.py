"""pandas-records: a JSON list of objects, one a row, `[{"tensor":[1.0,2.0]},{"tensor":[3.0,4.0]}]`.

JSON has no NaN and no infinity: refused when read, written as null. Both directions convert a whole field
at once; the answer is put together from the texts of its columns, so that no Python object is made for a
number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, repeat
from typing import Any

import numpy as np
import orjson

from columns.columns import Columns, is_constant
from columns.json_values import json_values
from columns.schema import Field, Schema
from columns.values import column_from_values
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def decode_records(body: bytes | bytearray | memoryview, schema: Schema) -> Columns:
    """Read records. Each row has exactly the schema's fields, and there is at least one row.

    Raises BadInput that names row and field.
    """
    rows = _load(body, schema)
    if not isinstance(rows, list):
        raise _not(rows, "the body", f"a list of records, {_example(schema)}")
    if not rows:
        raise BadInput(f"the body has no rows: expected at least one record, {_example(schema)}")
    _check_rows(rows, schema)
    return _from_rows(rows, schema)


def encode_records(columns: Columns, separator: str | None = None) -> bytes:
    """Write records. The first dot of a name makes a group, or with a separator `out<separator>x`."""
    if not columns.rows:
        return b"[]"
    order, literals = _layout(columns.schema.names, separator)
    pieces = [literals[0]]
    cells: list[list[bytes]] = []
    texts: list[bytes] = []
    for name, literal in zip(order, literals[1:], strict=True):
        before, column, after = _cells(columns.schema[name], columns.arrays[name])
        pieces.append(before)
        if column is not None:
            texts.append(b"".join(pieces))
            cells.append(column)
            pieces = []
        pieces += (after, literal)
    return _join(columns.rows, texts, cells, b"".join(pieces))


def _load(body: bytes | bytearray | memoryview, schema: Schema) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _explain_non_finite(bytes(body), schema)
        raise BadInput(f"the body is not JSON: {error}") from error


def _explain_non_finite(body: bytes, schema: Schema) -> None:
    """Raise BadInput that names row and field if all that is wrong is a number only Python's JSON reads."""
    if b"NaN" not in body and b"Infinity" not in body:
        return
    try:
        rows = json.loads(body)
        _check_rows(rows, schema)
    except (ValueError, RecursionError, BadInput):
        return
    _from_rows(rows, schema)


def _check_rows(rows: list[Any], schema: Schema) -> None:
    if set(map(type, rows)) != {dict}:
        index = next(index for index, row in enumerate(rows) if type(row) is not dict)
        raise _not(rows[index], f"row {index}", f"a record, as in {_example(schema)}")
    known = dict.fromkeys(schema.names).keys()
    for index, row in enumerate(rows):
        if row.keys() != known:
            schema.check_names(row, f"row {index}")


def _from_rows(rows: list[dict[str, Any]], schema: Schema) -> Columns:
    arrays = {field.name: column_from_values(field, [row[field.name] for row in rows], json=True) for field in schema}
    return Columns(schema, arrays, len(rows))


def _not(value: Any, what: str, expected: str) -> BadInput:
    kinds = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return BadInput(f"{what} is a JSON {kinds.get(type(value), 'number')}: expected {expected}")


def _example(schema: Schema) -> str:
    inner = ", ".join(f'"{field.name}": <{field.text}>' for field in schema.fields[:4])
    return "[{" + inner + (", ..." if len(schema) > 4 else "") + "}]"


@lru_cache(maxsize=256)
def _layout(names: tuple[str, ...], separator: str | None) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """The order of the cells in a row, and the text before, between and after them."""
    if separator is not None:
        flat = [name.replace(".", separator, 1) for name in names]
        return names, _literals([(each, None) for each in flat])
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    order = tuple(chain.from_iterable(groups.values()))
    for group, members in groups.items():
        if group in members and len(members) > 1:
            raise BadInput(f"'{group}' is a column and a group of columns: ask for it with a separator", field=group)
    return order, _literals([(group, rest if dot else None) for group, dot, rest in map(_split, order)])


def _split(name: str) -> tuple[str, str, str]:
    return name.partition(".")


def _literals(keys: list[tuple[str, str | None]]) -> tuple[bytes, ...]:
    literals, text, open_group = [], b"{", None
    for index, (key, inner) in enumerate(keys):
        if open_group is not None and (inner is None or key != open_group):
            text, open_group = text + b"}", None
        text += b"," if index else b""
        if inner is not None and open_group is None:
            text, open_group = text + orjson.dumps(key) + b":{", key
        elif inner is not None:
            key = open_group or key
        literals.append(text + orjson.dumps(key if inner is None else inner) + b":")
        text = b""
    return (*literals, text + b"}" * (open_group is not None) + b"}")


def _cells(field: Field, array: Array) -> tuple[bytes, list[bytes] | None, bytes]:
    """What stands before each cell, the cells, what stands behind; no cells where all rows say the same."""
    if len(array) == 1 or is_constant(array):
        return _one_cell(field, array), None, b""
    if array.dtype == object:
        values = json_values(field.type, array.tolist(), exact=False)
        return b"", [orjson.dumps(value, option=_NUMPY) for value in values], b""
    if array.size == 0:
        return orjson.dumps(array[0].tolist()), None, b""
    text = orjson.dumps(np.ascontiguousarray(array), option=_NUMPY)
    depth = array.ndim - 1
    before, after = b"[" * depth, b"]" * depth
    return before, text[array.ndim : -array.ndim].split(after + b"," + before), after


def _one_cell(field: Field, array: Array) -> bytes:
    if array.dtype == object:
        values = json_values(field.type, [array[0]], exact=False)
        return orjson.dumps(values[0], option=_NUMPY)
    return orjson.dumps(np.ascontiguousarray(array[:1]), option=_NUMPY)[1:-1]


def _join(rows: int, texts: list[bytes], cells: list[list[bytes]], last: bytes) -> bytes:
    if not cells:
        return b"[" + b",".join(repeat(last, rows)) + b"]"
    texts = [b"," + texts[0], *texts[1:]]
    parts: list[Iterable[bytes]] = list(chain.from_iterable(zip(map(repeat, texts), cells, strict=True)))
    lines: Iterator[tuple[bytes, ...]] = zip(*parts, repeat(last), strict=False)
    joined = b"".join(chain.from_iterable(lines))
    return b"".join((b"[", memoryview(joined)[1:], b"]"))
