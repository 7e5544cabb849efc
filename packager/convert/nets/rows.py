"""Rows for a network: the user's, and made ones. Networks have no thresholds to aim at, so rows differ in size and
kind: normal, zeros, ones, large, small, whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..fields import Unsuited, line
from .tensors import TensorField

ORDINARY = 24
MOST_VALUES = 2_000_000  # in all made rows together
_SEED = 20240229
_LENGTHS, _LARGEST = (8, 16, 32, 4), (9, 1, 0)  # of axes whose length is not said; of whole numbers

Arrays = dict[str, Any]


def given_rows(rows: Sequence[Mapping[str, Any]], fields: Sequence[TensorField]) -> Arrays:
    """The user's rows as tensors. Raises Unsuited that names the field."""
    arrays = {}
    for each in fields:
        try:
            arrays[each.name] = np.array([row[each.name] for row in rows], dtype=each.scalar)
        except (KeyError, TypeError, ValueError) as error:
            raise Unsuited(f"the golden rows' field '{each.name}' is not {each.text}: {line(error)}") from error
        if not each.fits(arrays[each.name].shape[1:]):
            raise Unsuited(f"the golden rows' field '{each.name}' is not {each.text} in each row")
    return arrays


def made_rows(fields: Sequence[TensorField], ask: Callable[[Arrays], Any]) -> Arrays:
    """Rows that the model answers: lengths and the largest whole number are tried until it does."""
    refused = ""
    for length in _LENGTHS if any(-1 in each.shape for each in fields) else _LENGTHS[:1]:
        for largest in _LARGEST if any("int" in each.scalar for each in fields) else _LARGEST[:1]:
            arrays = _made(fields, length, largest)
            try:
                ask(arrays)
            except Exception as error:  # whatever the original raises, these are no rows that it answers
                refused = refused or f"{type(error).__name__}: {line(_reason(error))}"
                continue
            return arrays
    raise Unsuited(
        f"the original answers none of the rows made for it: {refused}; do the types of [steps.input] fit it? Else "
        "give [golden] rows"
    )


def _reason(error: Exception) -> Any:
    """TorchScript puts a listing of the model before what went wrong, which it says last."""
    text = str(error).strip()
    return text.splitlines()[-1].removeprefix("RuntimeError: ") if "TorchScript interpreter" in text else error


def _made(fields: Sequence[TensorField], length: int, largest: int) -> Arrays:
    draw = np.random.RandomState(_SEED)
    shapes = {each.name: tuple(length if size < 0 else size for size in each.shape) for each in fields}
    values = sum(int(np.prod(shape)) for shape in shapes.values())
    count = max(2, min(ORDINARY, MOST_VALUES // max(1, values)))
    return {each.name: _column(each, shapes[each.name], count, largest, draw) for each in fields}


def _column(each: TensorField, shape: tuple[int, ...], count: int, largest: int, draw: Any) -> Any:
    if each.scalar == "bool":
        return draw.randint(0, 2, (count, *shape)).astype(bool)
    if "int" in each.scalar:
        return draw.randint(0, largest + 1, (count, *shape)).astype(each.scalar)
    made = draw.standard_normal((count, *shape))
    special = (made[0] * 0, made[0] * 0 + 1, made[0] * 30, made[0] / 1000, np.round(made[0]))
    for at, row in enumerate(special[: count - 1]):
        made[at + 1] = row
    return made.astype(each.scalar)
