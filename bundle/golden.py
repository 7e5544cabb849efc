"""Golden rows: inputs with the answers that the original framework gave, and how answers are compared.

The file is pandas-records JSON: one object a row, `in.<field>` (or bare) and, where known, `out.<field>`. JSON has no
NaN: in an expected answer a null stands for a number that is not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import orjson

from columns.columns import Columns
from columns.json_value import JSON_VALUE, VALUE, is_value
from columns.records import decode_records, encode_records
from columns.schema import Schema
from edgepack.errors import BadInput

IN = "in."
OUT = "out."
TOLERANCE = 1e-5  # of fields that a table of tolerances does not name

Tolerance = float | Mapping[str, float]  # one for all fields, or one a field


@dataclass(frozen=True)
class GoldenRows:
    """Inputs and, where they are known, the expected outputs; as many rows in both."""

    inputs: Columns
    outputs: Columns | None = None

    @classmethod
    def decode(cls, data: bytes, inputs: Schema, outputs: Schema) -> GoldenRows:
        """Read pandas-records JSON; nothing need be known of what a step without schema answers.

        Raises BadInput that names row and field when it does not fit the two schemas.
        """
        rows = _objects(data, may_be_none=is_value(inputs))
        if not rows:
            return cls(Columns(inputs, {name: np.empty(0, dtype=object) for name in inputs.names}, 0))
        given, expected = _split(rows)
        columns = decode_records(orjson.dumps(_as_text(given, inputs)), inputs)
        if not any(expected):
            return cls(columns)
        if not all(set(row) == set(outputs.names) for row in expected):
            bad = next(i for i, row in enumerate(expected) if set(row) != set(outputs.names))
            raise BadInput(
                f"golden row {bad} has outputs {_names(expected[bad])}, the pipeline gives {_names(outputs.names)}: "
                "give all of them in every row, or none"
            )
        return cls(columns, _expected_columns(_as_text(expected, outputs), outputs))

    def encode(self) -> bytes:
        """The one serialization: a row a line, inputs before outputs, each in the order of its schema."""
        lines = zip(_objects_of(self.inputs, IN), _objects_of(self.outputs, OUT, self.inputs.rows), strict=True)
        return b"[\n" + b",\n".join(orjson.dumps({**given, **expected}) for given, expected in lines) + b"\n]\n"

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.inputs.rows


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What comparing showed. All numbers are finite; `worst_row` and `reason` are None when nothing is to be told.

    `max_rel` is relative to max(1, |expected|). A label flip is a value that must be equal (integer, boolean, string,
    length of a list, being finite) and is not.
    """

    rows: int
    max_abs: float
    max_rel: float
    label_flips: int
    worst_row: int | None
    passed: bool
    reason: str | None = None


@dataclass
class _Worst:
    """The largest difference met so far."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    flips: int = 0
    row: int | None = None
    reason: str | None = None
    excess: float = 0.0  # the largest distance, as a multiple of its field's tolerance
    tolerance: float = 0.0  # of the field that the reason names

    def flip(self, row: int, field: str, expected: Any, actual: Any, count: int = 1) -> None:
        """A value that must be equal is not: worse than any distance."""
        if not self.flips:
            self.row = row
            self.reason = f"row {row}, field '{field}': expected {_short(expected)}, found {_short(actual)}"
        self.flips += count

    def distance(
        self, row: int, field: str, expected: float, actual: float, distances: tuple[float, float], tolerance: float
    ) -> None:
        """Two numbers lie apart: absolutely and relatively."""
        absolute, relative = distances
        self.max_abs, self.max_rel = max(self.max_abs, absolute), max(self.max_rel, relative)
        excess = relative / tolerance if tolerance else float("inf") if relative else 0.0
        if excess > self.excess or (relative and self.reason is None):
            self.excess, self.tolerance = max(excess, self.excess), tolerance
            if not self.flips:
                self.row = row
                self.reason = f"row {row}, field '{field}': expected {expected:.9g}, found {actual:.9g}"


def compare(expected: Columns, actual: Columns, tolerance: Tolerance) -> Comparison:
    """Compare answers field by field. Floating numbers may differ by `tolerance` times max(1, |expected|), all else
    not at all.

    Raises BadInput when the two are not the same fields and number of rows.
    """
    if set(expected.schema.names) != set(actual.schema.names) or expected.rows != actual.rows:
        raise BadInput(
            f"{actual.rows} rows of {_names(actual.schema.names)} cannot be compared with "
            f"{expected.rows} rows of {_names(expected.schema.names)}"
        )
    if expected.schema == actual.schema == JSON_VALUE:
        expected, actual = parsed(expected), parsed(actual)
    worst = _Worst()
    for name in expected.schema.names:
        allowed = tolerance_of(name, tolerance)
        _compare_field(name, np.asarray(expected.arrays[name]), np.asarray(actual.arrays[name]), worst, allowed)
    passed = worst.flips == 0 and worst.excess <= 1
    reason = None if passed else f"{worst.reason} (tolerance {worst.tolerance:g})"
    return Comparison(expected.rows, worst.max_abs, worst.max_rel, worst.flips, worst.row, passed, reason)


def tolerance_of(field: str, tolerance: Tolerance) -> float:
    """The tolerance of one field."""
    return tolerance.get(field, TOLERANCE) if isinstance(tolerance, Mapping) else tolerance


def _compare_field(
    name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], worst: _Worst, tolerance: float
) -> None:
    worst.tolerance = worst.tolerance or tolerance
    if expected.dtype == object or actual.dtype == object or expected.shape != actual.shape:
        for row in range(len(expected)):
            _compare_values(name, row, expected[row], actual[row], worst, tolerance)
    elif expected.dtype.kind == "f":
        _compare_floats(name, expected, actual, worst, tolerance)
    else:
        differs = expected != actual
        if differs.any():
            where = tuple(int(i) for i in np.argwhere(differs)[0])
            worst.flip(where[0], name, expected[where].item(), actual[where].item(), int(differs.sum()))


def _compare_floats(
    name: str,
    expected: np.ndarray[Any, Any],
    actual: np.ndarray[Any, Any],
    worst: _Worst,
    tolerance: float,
    first_row: int = 0,
) -> None:
    if not expected.size:
        return
    want, got = expected.astype(np.float64), actual.astype(np.float64)
    absolute, relative, apart = distances(want, got)
    if apart.any():
        where = tuple(int(i) for i in np.argwhere(apart)[0])
        worst.flip(first_row + where[0], name, want[where].item(), got[where].item(), int(apart.sum()))
    most = tuple(int(i) for i in np.unravel_index(int(relative.argmax()), relative.shape))
    largest = (float(absolute.max()), float(relative[most]))
    worst.distance(first_row + most[0], name, want[most].item(), got[most].item(), largest, tolerance)


def distances(want: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """How far floats of 64 bits lie apart: absolutely, relative to max(1, |want|), and where one alone is finite, for
    which both are 0. A wanted NaN stands for any number that is not finite.
    """
    with np.errstate(all="ignore"):
        absolute = np.abs(got - want)
        relative = absolute / np.maximum(1.0, np.abs(want))
    same = (want == got) | (np.isnan(want) & ~np.isfinite(got))
    absolute[same] = relative[same] = 0.0
    apart = ~np.isfinite(absolute)
    absolute[apart] = relative[apart] = 0.0
    return absolute, relative, apart


def _compare_values(name: str, row: int, expected: Any, actual: Any, worst: _Worst, tolerance: float) -> None:
    """Compare values that are not one tensor: ragged lists, strings, structs."""
    want, got = list(leaves(expected)), list(leaves(actual))
    if [path for path, _ in want] != [path for path, _ in got]:
        worst.flip(row, name, expected, actual)
        return
    for (_, one), (_, other) in zip(want, got, strict=True):
        if isinstance(one, float) and isinstance(other, float):
            _compare_floats(name, np.array([one]), np.array([other]), worst, tolerance, first_row=row)
        elif one != other:
            worst.flip(row, name, one, other)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar in a nested value with the path to it; numpy scalars become Python's."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for key in value:
            yield from leaves(value[key], f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")
    else:
        yield path, value.item() if isinstance(value, np.generic) else value


def _objects(data: bytes, *, may_be_none: bool = False) -> list[dict[str, Any]]:
    try:
        rows = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"golden rows are not JSON: {error}") from error
    if not isinstance(rows, list) or not (rows or may_be_none) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(
            'golden rows are not pandas-records: expected a list of objects like [{"in.x": [1.0], "out.y": [0.5]}]'
        )
    return rows


def _split(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    given, expected = [], []
    for number, row in enumerate(rows):
        inputs = {name.removeprefix(IN): value for name, value in row.items() if not name.startswith(OUT)}
        outputs = {name.removeprefix(OUT): value for name, value in row.items() if name.startswith(OUT)}
        if len(inputs) + len(outputs) != len(row):
            raise BadInput(f"golden row {number} gives a field twice: write it as 'in.<field>' or bare, not both")
        given.append(inputs)
        expected.append(outputs)
    return given, expected


def _expected_columns(rows: list[dict[str, Any]], schema: Schema) -> Columns:
    """Decode expected answers; a column of floating tensors may hold nulls for numbers that are not finite."""
    gaps = {}
    for field in schema.fields:
        tensor = field.type.tensor_dtype_and_shape()
        values = [row[field.name] for row in rows]
        if tensor is not None and tensor[0].kind == "f" and any(leaf is None for _, leaf in leaves(values)):
            gaps[field.name] = _with_gaps(field.name, values, tensor[0])
    whole = Schema(tuple(field for field in schema.fields if field.name not in gaps))
    parts = dict(gaps)
    if whole.fields:
        slim = [{name: row[name] for name in whole.names} for row in rows]
        parts.update(decode_records(orjson.dumps(slim), whole).arrays)
    return Columns.of(schema, {name: parts[name] for name in schema.names})


def _with_gaps(name: str, values: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    try:
        return np.array(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise BadInput(f"golden rows, field 'out.{name}': {error}", field=f"out.{name}") from error


def _objects_of(columns: Columns | None, prefix: str, rows: int = 0) -> list[dict[str, Any]]:
    if columns is None:
        return [{} for _ in range(rows)]
    parsed: list[dict[str, Any]] = orjson.loads(encode_records(columns, "."))
    if is_value(columns.schema) and columns.schema[VALUE].text == "string":
        parsed = [{**row, VALUE: orjson.loads(row[VALUE])} for row in parsed]
    return [{prefix + name: row[name] for name in columns.schema.names} for row in parsed]


def _as_text(rows: list[dict[str, Any]], schema: Schema) -> list[dict[str, Any]]:
    """The value of a step without schema stands in the file as it is, and in its column as text."""
    if not is_value(schema):
        return rows
    beside = dict.fromkeys(schema.names[1:], "")  # a row need not say how it is asked
    return [{**beside, **row, VALUE: orjson.dumps(row[VALUE]).decode()} if VALUE in row else row for row in rows]


def parsed(columns: Columns) -> Columns:
    """JSON texts as values, with members in one order."""
    column = np.empty(columns.rows, dtype=object)
    for row, text in enumerate(columns.arrays[VALUE]):
        column[row] = orjson.loads(orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS))
    return Columns(columns.schema, {VALUE: column}, columns.rows)


def _names(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def _short(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else text[:57] + "…"
