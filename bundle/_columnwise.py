"""How validations compute on columns, rows first: in 64 bits, and with an eye on rows that have no value to look at.

Nothing wraps around, nothing is divided by zero unseen, NaN and nulls pass no comparison. A column whose rows differ in
shape comes row by row (`shaped`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_WHOLE = 2.0**63 - 2**12  # from here on a float may stand for a whole number beyond 64 bits


class Look:
    """The columns that an expression looks at, rows first, and the rows where it finds no value."""

    __slots__ = ("arrays", "blind")

    def __init__(self, arrays: Mapping[str, Array], rows: int) -> None:
        self.arrays = arrays
        self.blind = np.zeros(rows, dtype=bool)

    def miss(self, where: Any) -> None:
        """Note the rows in which any of these is true; a single value speaks for all rows."""
        if np.any(where):
            self.blind |= np.any(where, axis=tuple(range(1, np.ndim(where)))) if np.ndim(where) > 1 else where


Operation = Callable[[Look, Any, Any], Any]


def computed(operation: Callable[..., Any], *, divides: bool) -> Operation:
    """Arithmetic; where it divides by zero there is no value."""

    def compute(look: Look, left: Any, right: Any) -> Any:
        if divides:
            look.miss(np.equal(right, 0))
        return safe(operation, left, right)

    return compute


def compared(operation: Callable[..., Any]) -> Operation:
    """A comparison; NaN is no value to compare."""

    def compute(look: Look, left: Any, right: Any) -> Any:
        for side in (left, right):
            if getattr(side, "dtype", None) == np.float64:
                look.miss(np.isnan(side))
        return operation(left, right)

    return compute


def safe(operation: Callable[..., Any], *operands: Any) -> Any:
    """Compute with whole numbers as such where the outcome fits into 64 bits, else as floats: nothing wraps around."""
    found = operation(*operands)
    if getattr(found, "dtype", None) != np.int64:
        return found
    rough = operation(*(np.asarray(operand, np.float64) for operand in operands))
    return rough if np.any(np.abs(rough) >= _WHOLE) else found


def spread(value: Any, axes: int) -> Any:
    """One value a row, so that it meets every element of a list with these axes."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and axes:
        return value.reshape(-1, *([1] * axes))
    return value


def wide(value: Any) -> Any:
    """Compute in 64 bits: uint8 would wrap around, and float32 0.9 compared as float32 is not the 0.9 that was
    written. Raises TypeError for a null.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind == "b":
        return value
    if value.dtype == object:
        return _without_nulls(value)
    return value.astype(np.int64 if value.dtype.kind in "iu" and value.dtype != np.uint64 else np.float64, copy=False)


def _without_nulls(value: Array) -> Any:
    """Text as it is; numbers and booleans that came as Python's as an array of theirs. Raises TypeError for a null."""
    values = value.ravel().tolist()
    if any(each is None or isinstance(each, list) for each in values):
        raise TypeError("a null, or lists that are not equally long")
    if all(isinstance(each, str) for each in values):
        return value
    return wide(np.array(values).reshape(value.shape))


def at(value: Array, position: int) -> Array:
    """One element of each row's list."""
    if value.ndim > 1:
        return value[:, position]
    return shaped(value[0][position])  # lists that are not equally long come row by row


def lengths(value: Array) -> Array:
    """How long each row's list is."""
    return np.full(len(value), value.shape[1] if value.ndim > 1 else len(value[0]))


def reduced(reduce: Callable[..., Any], value: Array) -> Any:
    """Each row's list brought down to one value. Raises ValueError where there is none of nothing."""
    whole = wide(value if value.ndim > 1 else shaped(_flat(value[0])))
    axes = tuple(range(1, whole.ndim))
    if not whole.size and reduce is np.mean:
        raise ValueError("no mean of nothing")
    return safe(lambda array: reduce(array, axis=axes), whole) if reduce is np.sum else reduce(whole, axis=axes)


def shaped(value: Any) -> Array:
    """One row's value as a column of one row; lists in it that are not equally long, and text, stay Python's."""
    if isinstance(value, np.ndarray):
        return value[np.newaxis]
    if isinstance(value, list):
        with contextlib.suppress(ValueError):
            found = np.array([value], dtype=object if _holds_text(value) else None)
            if found.ndim > 1:
                return found
    alone = np.empty(1, dtype=object)
    alone[0] = value
    return alone


def _holds_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and any(map(_holds_text, value)))


def _flat(value: Any) -> list[Any]:
    return [leaf for each in value for leaf in _flat(each)] if isinstance(value, list) else [value]


def fold(join: Callable[[Any, Any], Any], values: list[Any]) -> Any:
    """All of these joined, two at a time."""
    folded = values[0]
    for value in values[1:]:
        folded = join(folded, value)
    return folded
