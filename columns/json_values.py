"""The Python values of an object column to what orjson writes, and back where nothing may be lost.

Binary becomes base64 text, a point in time ISO 8601 text, a float32 a numpy scalar, which orjson prints shortest.
"""

from __future__ import annotations

import base64
import math
from typing import Any

from columns.types import ListOf, Scalar, StructOf, Type, scalars_of

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def json_values(type_: Type, values: list[Any], *, exact: bool) -> list[Any]:
    """Python values of an object column as orjson can write them.

    float16 and float32 become numpy scalars, which orjson prints shortest. With `exact`, NaN and infinities
    become the texts NaN, Infinity, -Infinity (`from_exact` reads them); without it orjson writes them as
    null.
    """
    if all(each.name in _AS_IT_IS for each in scalars_of(type_)):
        return values
    return [_json_value(type_, value, exact) for value in values]


def from_exact(type_: Type, value: Any) -> Any:
    """Undo what `json_values` did to NaN and infinities; what is not one comes back as it is."""
    if isinstance(type_, Scalar):
        is_text = isinstance(value, str) and type_.name.startswith("float")
        return _NON_FINITE.get(value, value) if is_text else value
    if isinstance(type_, ListOf) and isinstance(value, list):
        return [from_exact(type_.item, item) for item in value]
    if isinstance(type_, StructOf) and isinstance(value, dict):
        known = dict(type_.fields)
        return {name: from_exact(known[name], item) if name in known else item for name, item in value.items()}
    return value


def has_floats(type_: Type) -> bool:
    """Whether a NaN could stand in a value of this type."""
    return any(each.name.startswith("float") for each in scalars_of(type_))


_AS_IT_IS = frozenset({"bool", "string", "date32", *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64))})


def _json_value(type_: Type, value: Any, exact: bool) -> Any:
    if value is None:
        return None
    if isinstance(type_, ListOf):
        return [_json_value(type_.item, item, exact) for item in value]
    if isinstance(type_, StructOf):
        return {name: _json_value(each, value[name], exact) for name, each in type_.fields}
    return _json_scalar(type_, value, exact)


def _json_scalar(type_: Scalar, value: Any, exact: bool) -> Any:
    if type_.name == "binary":
        return base64.b64encode(value).decode("ascii")
    if type_.name.startswith("timestamp"):
        return str(value)
    dtype = type_.dtype
    if dtype is None or dtype.kind != "f":
        return value
    if not math.isfinite(value):
        return ("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity") if exact else None
    return dtype.type(value) if dtype.itemsize < 8 else value
