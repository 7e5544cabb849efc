"""Losses: how far the answers of quantized models are from those expected, measured as quantization errs.

Weights of eight bits err in proportion to the range of what is computed, not to each value: a score of 0.1 among scores
of -30 to 30 is as far off as one of 29. So a difference is held against the range of the field's expected answers, and
of what must be equal (labels: integers, texts, booleans) against how many there are. That quantization makes a number
infinite or none is never right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from bundle.golden import Comparison, compare, distances, leaves, parsed
from columns.columns import Columns
from columns.json_value import JSON_VALUE

Array = np.ndarray[Any, Any]


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one field's answers are from those expected.

    `of_range` is `max_abs` over the distance between the smallest and the largest number expected in this field; where
    all are equal, over their size, and over 1 where all are 0. `label_flips` counts what must be equal and is not;
    `argmax_flips` the rows of a list of numbers whose largest stands in another place; `not_finite` the numbers that
    are finite on one side alone.
    """

    values: int
    max_abs: float
    max_rel: float
    of_range: float
    label_flips: int
    argmax_flips: int
    worst_row: int | None
    not_finite: int = 0

    def is_within(self, tolerance: float, spare: int = 0) -> bool:
        """Whether numbers differ by at most that share of the range, and that share of labels, and `spare`, flip."""
        is_near = not self.not_finite and self.of_range <= tolerance
        return is_near and self.label_flips <= tolerance * self.values + spare


def losses(expected: Columns, actual: Columns) -> dict[str, Loss]:
    """The loss of each field. Both have the same fields and rows, as `golden.compare` makes sure."""
    if expected.schema == actual.schema == JSON_VALUE:
        expected, actual = parsed(expected), parsed(actual)
    found = {}
    for name in expected.schema.names:
        want, got = np.asarray(expected.arrays[name]), np.asarray(actual.arrays[name])
        is_plain = want.dtype != object and got.dtype != object and want.shape == got.shape
        found[name] = _of_arrays(want, got) if is_plain else _of_values(want, got)
    return found


def compare_lossy(expected: Columns, actual: Columns, tolerance: float) -> Comparison:
    """Compare answers of a pipeline with quantized models: passed where every field's loss is within the tolerance.

    One label more may flip, for where two classes draw another kernel may choose the other: of so many labels that some
    may flip anyhow, else in a row in which scores draw. Raises as `compare` does.
    """
    found = compare(expected, actual, 0.0)
    beyond = {
        name: loss
        for name, loss in losses(expected, actual).items()
        if not (loss.is_within(tolerance) or _has_drawn(loss, expected, tolerance))
    }
    if not beyond:
        return msgspec.structs.replace(found, passed=True, reason=None)
    name, loss = max(beyond.items(), key=lambda each: each[1].of_range)
    return msgspec.structs.replace(found, passed=False, reason=f"field '{name}': {told(loss)} (allowed {tolerance:g})")


def told(loss: Loss) -> str:
    """A loss in words: the row where it is largest, its share of the range, labels that flipped."""
    row = "" if loss.worst_row is None else f"row {loss.worst_row}, "
    flips = f", {loss.label_flips} of {loss.values} labels flip" if loss.label_flips else ""
    gaps = f", {loss.not_finite} of {loss.values} numbers are finite on one side alone" if loss.not_finite else ""
    return f"{row}{loss.of_range:.2g} of the range{flips}{gaps}"


def _has_drawn(loss: Loss, expected: Columns, tolerance: float) -> bool:
    """Whether all that is beyond the tolerance is one label that may flip."""
    if not loss.is_within(tolerance, spare=1):
        return False
    if loss.values * tolerance >= 1:
        return True
    columns = parsed(expected) if expected.schema == JSON_VALUE else expected
    return any(_draw(column, loss.worst_row or 0, tolerance) for column in columns.arrays.values())


def _draw(column: Any, row: int, tolerance: float) -> bool:
    """Whether the two largest numbers of a row lie so close that both may err into the other's place."""
    scores = _finite(column[row])
    if len(scores) < 2:
        return False
    second, first = np.partition(scores, -2)[-2:]
    return bool(first - second <= 2 * tolerance * _range(_finite(column)))


def _finite(value: Any) -> Array:
    """The numbers in a value that are floats, and finite."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value[np.isfinite(value)]
    floats = np.array([leaf for _, leaf in leaves(value) if isinstance(leaf, float)], dtype=np.float64)
    return floats[np.isfinite(floats)]


def _of_arrays(want: Array, got: Array) -> Loss:
    if not want.size:
        return Loss(0, 0.0, 0.0, 0.0, 0, 0, None)
    rows = np.broadcast_to(np.arange(len(want)).reshape(-1, *[1] * (want.ndim - 1)), want.shape).ravel()
    if want.dtype.kind != "f":
        return _of_pairs(np.empty(0), np.empty(0), np.empty(0, int), int(want.size), rows[(want != got).ravel()])
    found = _of_pairs(want.ravel(), got.ravel(), rows, int(want.size), np.empty(0, int))
    is_list = want.ndim == 2 and want.shape[1] > 1
    elsewhere = int((want.argmax(axis=1) != got.argmax(axis=1)).sum()) if is_list else 0
    return msgspec.structs.replace(found, argmax_flips=elsewhere)


def _of_values(want: Array, got: Array) -> Loss:
    """Values that are not one tensor: ragged lists, texts, structs."""
    numbers: list[tuple[float, float, int]] = []
    flips: list[int] = []
    count = 0
    for row, (one, other) in enumerate(zip(want, got, strict=True)):
        for first, second in _pairs(one, other):
            count += 1
            if isinstance(first, float) and isinstance(second, float):
                numbers.append((first, second, row))
            elif first != second:
                flips.append(row)
    columns = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return _of_pairs(columns[:, 0], columns[:, 1], columns[:, 2].astype(int), count, np.array(flips, dtype=int))


def _pairs(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """The scalars of two values, side by side; the values themselves where they are built differently."""
    want, got = list(leaves(one)), list(leaves(other))
    if [path for path, _ in want] != [path for path, _ in got]:
        yield str(one), None
        return
    for (_, first), (_, second) in zip(want, got, strict=True):
        yield first, second


def _of_pairs(want: Array, got: Array, rows: Array, values: int, flipped: Array) -> Loss:
    """The loss of numbers side by side, in these rows, and of labels that flipped in those."""
    want, got = want.astype(np.float64), got.astype(np.float64)
    distance, relative, apart = distances(want, got)
    wrong = np.concatenate([flipped, rows[apart]])
    most = float(distance.max(initial=0.0))
    worst = int(wrong.min()) if len(wrong) else int(rows[int(distance.argmax())]) if most else None
    share = most / _range(want[np.isfinite(want)]) if most else 0.0
    return Loss(values, most, float(relative.max(initial=0.0)), share, len(flipped), 0, worst, int(apart.sum()))


def _range(numbers: Array) -> float:
    between = float(np.ptp(numbers)) if numbers.size else 0.0
    return between or float(np.abs(numbers).max(initial=0.0)) or 1.0
