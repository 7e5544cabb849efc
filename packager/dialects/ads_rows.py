"""Rows that an artifact's model is likely to know: made of the statistics that ADS keeps of its training data.

Zeros and ones, which fit any schema, are no customers and no machines: code that divides by a field, or looks a value
up, refuses them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeGuard

from columns.columns import Columns
from columns.json_value import from_rows
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.archives import Tree
from packager.dialects.ads_schema import INPUT, attributes_of

ROWS = 8
# ADS's words of today, and of its older versions
_STATISTICS = (
    *("median", "lower quartile", "upper quartile", "mean", "sample minimum", "sample maximum"),
    *("50%", "25%", "75%", "min", "max"),
)
_TEXT = "a"


def likely_rows(tree: Tree, inputs: Schema) -> Columns | None:
    """Rows of the fields; None where nothing is known of any number, or a field is more than a value."""
    if INPUT not in tree.files:
        return None
    known = {str(each.get("name")): _numbers(each) for each in attributes_of(tree, INPUT)}
    if not any(known.get(name) for name in inputs.names):
        return None
    rows = [
        {
            field.name: _value(field.text.removesuffix("?"), known.get(field.name, []), row + at)
            for at, field in enumerate(inputs)
        }
        for row in range(ROWS)
    ]
    try:
        return from_rows(rows, inputs)
    except BadInput:
        return None


def _numbers(attribute: Mapping[str, Any]) -> list[float]:
    domain = attribute.get("domain")
    stats = domain.get("stats") if isinstance(domain, dict) else None
    said = [stats.get(name) for name in _STATISTICS] if isinstance(stats, dict) else []
    return [each for each in said if _is_number(each)]


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a statistic fits a double: JSON may hold more digits, and Python's has NaN and Infinity too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _value(type_: str, numbers: list[float], at: int) -> Any:
    if type_ == "string":
        return _TEXT
    if type_ == "bool":
        return at % 2 == 1
    number = numbers[at % len(numbers)] if numbers else 1.0
    return round(number) if "int" in type_ else float(number)
