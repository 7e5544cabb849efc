"""Plain Python values to one column of a type.

`column_from_values` has two ways of which the second is the truth: a fast one that converts a whole tensor
at once, and a walk over each value that mends what the fast one did not take or says which value of which
row is at fault.

Binary is base64 text in JSON. A date or timestamp is ISO 8601 text; a whole number is taken for
`timestamp[ms]` alone, because pandas writes milliseconds whatever the unit of its column is.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import math
import re
import struct
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np

from columns.schema import Field
from columns.types import ListOf, Scalar, StructOf, TensorShape, Type, clip
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]

_KINDS: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float}),
}
_PACKED = {"float16": struct.Struct("<e"), "float32": struct.Struct("<f"), "float64": struct.Struct("<d")}
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(?:Z|([+-])(\d\d):(\d\d))?")
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_FIRST, _LAST = np.datetime64("0001-01-01T00:00:00", "s"), np.datetime64("9999-12-31T23:59:59", "s")
_NS_SECONDS = np.timedelta64(9_223_372_035, "s")  # what 64 bits of nanoseconds hold, on either side of the epoch
_EPOCH = datetime.date(1970, 1, 1)


def object_array(values: Iterable[Any]) -> Array:
    """A 1-D object array; numpy's own conversion would turn equally long lists into a second axis."""
    listed = values if isinstance(values, list) else list(values)
    return np.fromiter(listed, dtype=object, count=len(listed))


def column_from_values(field: Field, values: list[Any], *, json: bool) -> Array:
    """One column of the field's type from one Python value a row.

    With `json` the values come from JSON text, which has no NaN and no infinity. Raises BadInput that names
    row, field, what was expected and what was found.
    """
    tensor = field.type.tensor_dtype_and_shape()
    if tensor is not None:
        array = _tensor(values, *tensor, json=json)
        if array is not None:
            return array
    elif _is_text(field.type, values):
        return object_array(values)
    checked = [_checked(field, row, value, json) for row, value in enumerate(values)]
    if tensor is not None:  # numpy scalars, tuples and the like, now plain
        array = _tensor(checked, *tensor, json=json)
        if array is not None:
            return array
    return object_array(checked)


def _tensor(values: list[Any], dtype: np.dtype[Any], shape: TensorShape, *, json: bool) -> Array | None:
    """The tensor of these nested lists; None when they are not plainly one."""
    level, sizes = values, [len(values)]
    for size in shape:
        if set(map(type, level)) - {list}:
            return None
        lengths = set(map(len, level)) or {size or 0}
        if len(lengths) > 1 or (size is not None and lengths != {size}):
            return None
        sizes.append(lengths.pop())
        level = list(chain.from_iterable(level))
    if set(map(type, level)) - _KINDS[dtype.kind]:
        return None
    flat = _floats(level, dtype, json) if dtype.kind == "f" else _whole(level, dtype)
    return None if flat is None else flat.reshape(sizes)


def _floats(level: list[Any], dtype: np.dtype[Any], json: bool) -> Array | None:
    try:
        wide = np.array(level, dtype=np.float64)
    except OverflowError:
        return None
    if dtype == np.float64:
        flat = wide
    else:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            flat = wide.astype(dtype)
    if np.isfinite(flat).all():
        return flat
    # A finite double that became an infinity does not fit the type; NaN and true infinities fit outside JSON.
    fits = not json and bool((np.isfinite(flat) == np.isfinite(wide)).all())
    return flat if fits else None


def _whole(level: list[Any], dtype: np.dtype[Any]) -> Array | None:
    if level and dtype.kind != "b":
        limits = np.iinfo(dtype)
        if min(level) < limits.min or max(level) > limits.max:
            return None
    return np.array(level, dtype=dtype)


def _is_text(type_: Type, values: list[Any]) -> bool:
    if type_ == Scalar("string"):
        return not set(map(type, values)) - {str}
    return type_ == Scalar("string", nullable=True) and not set(map(type, values)) - {str, type(None)}


class _Misfit(Exception):
    """A value its type does not take; `path` grows outwards while the error travels up."""

    def __init__(self, expected: object, found: object) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.path = ""

    def under(self, step: str) -> _Misfit:
        self.path = step + self.path
        return self


def _checked(field: Field, row: int, value: Any, json: bool) -> Any:
    try:
        return _walk(field.type, value, json)
    except _Misfit as misfit:
        raise BadInput(f"row {row} field '{field.name}{misfit.path}': {misfit}", field=field.name) from None


def _walk(type_: Type, value: Any, json: bool) -> Any:
    if value is None:
        if type_.nullable:
            return None
        raise _Misfit(type_, "null")
    if isinstance(type_, ListOf):
        return _walk_list(type_, value, json)
    if isinstance(type_, StructOf):
        return _walk_struct(type_, value, json)
    return _SCALARS[type_.name.partition("[")[0]](type_, value, json)


def _walk_list(type_: ListOf, value: Any, json: bool) -> list[Any]:
    if isinstance(value, np.ndarray) and value.ndim:
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise _Misfit(type_, _found(value))
    if type_.size is not None and len(value) != type_.size:
        raise _Misfit(type_, _found(value))
    items = []
    for index, item in enumerate(value):
        try:
            items.append(_walk(type_.item, item, json))
        except _Misfit as misfit:
            raise misfit.under(f"[{index}]") from None
    return items


def _walk_struct(type_: StructOf, value: Any, json: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Misfit(type_, _found(value))
    known = dict(type_.fields)
    for name in value:
        if name not in known:
            raise _Misfit(f"the fields {', '.join(known)}", f"an unknown field '{clip(str(name), 40)}'")
    for name, each in type_.fields:
        if name not in value:
            raise _Misfit(each, "no such field").under(f".{name}")
    fields = {}
    for name, each in type_.fields:
        try:
            fields[name] = _walk(each, value[name], json)
        except _Misfit as misfit:
            raise misfit.under(f".{name}") from None
    return fields


def _truth(type_: Scalar, value: Any, json: bool) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise _Misfit(type_, _found(value))
    return bool(value)


def _integer(type_: Scalar, value: Any, json: bool) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or isinstance(value, np.timedelta64):
        raise _Misfit(type_, _found(value))
    limits = np.iinfo(type_.name)
    if not limits.min <= value <= limits.max:
        raise _Misfit(f"{type_}, {limits.min} to {limits.max}", _found(value))
    return int(value)


def _float(type_: Scalar, value: Any, json: bool) -> float:
    """The value as the type keeps it: rounded here, so that each encoding gives the same float32."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise _Misfit(type_, _found(value))
    packed = _PACKED[type_.name]
    try:
        rounded: float = packed.unpack(packed.pack(value))[0]
    except (OverflowError, struct.error):
        raise _Misfit(f"{type_} within its range", _found(value)) from None
    if json and not math.isfinite(rounded):
        raise _Misfit(f"a finite {type_} (JSON has no NaN and no infinity)", _found(value))
    return rounded


def _string(type_: Scalar, value: Any, json: bool) -> str:
    if not isinstance(value, str):
        raise _Misfit(type_, _found(value))
    return str(value)


def _binary(type_: Scalar, value: Any, json: bool) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise _Misfit("binary as base64 text", _found(value))
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _Misfit("binary as base64 text", _found(value)) from None


def _date(type_: Scalar, value: Any, json: bool) -> datetime.date:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        if isinstance(value, str):
            return datetime.date.fromisoformat(value)
        if type(value) is int and not json:
            return _EPOCH + datetime.timedelta(days=value)
    except (ValueError, OverflowError):
        pass
    raise _Misfit("a date such as 2030-12-31", _found(value))


def _timestamp(type_: Scalar, value: Any, json: bool) -> np.datetime64:
    unit = type_.name[len("timestamp[") : -1]
    stamp: np.datetime64 | None = None
    if type(value) is str:
        stamp = _from_iso(value, unit)
    elif type(value) is int and (unit == "ms" or not json) and abs(value) < 2**63:
        stamp = np.datetime64(value, unit)  # type: ignore[call-overload]
    elif isinstance(value, (np.datetime64, datetime.datetime)) and getattr(value, "tzinfo", None) is None:
        stamp = np.datetime64(value)
        stamp = stamp.astype(f"datetime64[{unit}]") if _in_range(stamp, unit) else None
    if stamp is None or not _in_range(stamp, unit):
        number = ", or milliseconds since 1970" if unit == "ms" else ""
        raise _Misfit(f"{type_} as text such as 2030-12-31T23:59:59{number}", _found(value))
    return stamp


def _in_range(stamp: np.datetime64, unit: str) -> bool:
    if np.isnat(stamp):
        return False
    second = stamp.astype("datetime64[s]")
    narrow = unit == "ns" and abs(second - np.datetime64(0, "s")) > _NS_SECONDS
    return bool(_FIRST <= second <= _LAST) and not narrow


def _from_iso(text: str, unit: str) -> np.datetime64 | None:
    """A point in time from ISO 8601 text, in UTC where the text has no zone; None where digits would be lost."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, sign, hours, minutes = match.groups()
    digits = (fraction or "").rstrip("0")
    if len(digits) > _DIGITS[unit]:
        return None
    try:
        second = np.datetime64(f"{day}T{clock or '00:00'}").astype("datetime64[s]")
    except ValueError:
        return None
    if sign:
        second -= np.timedelta64(int(sign + "1") * (int(hours) * 60 + int(minutes)), "m")
    if not _in_range(second, unit):
        return None
    part = np.timedelta64(int(digits.ljust(_DIGITS[unit], "0") or 0), unit)  # type: ignore[call-overload]
    stamp: np.datetime64 = second.astype(f"datetime64[{unit}]") + part
    return stamp


_SCALARS: dict[str, Callable[[Scalar, Any, bool], Any]] = {
    "bool": _truth,
    **{f"{sign}int{bits}": _integer for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": _float,
    "float32": _float,
    "float64": _float,
    "string": _string,
    "binary": _binary,
    "date32": _date,
    "timestamp": _timestamp,
}


def _found(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, str):
        return f"'{clip(value, 40)}'"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return clip(str(value), 40)
