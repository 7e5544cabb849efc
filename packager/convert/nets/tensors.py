"""Fields of a step as tensors: the first axis is the rows, the field's lists are the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..fields import Unsuited


class TensorField(NamedTuple):
    """A field; `shape` is that of one row, -1 for an axis whose length is not said."""

    name: str
    scalar: str
    shape: tuple[int, ...]

    @property
    def text(self) -> str:
        """The type as edgepack writes it."""
        text = self.scalar
        for size in reversed(self.shape):
            text = f"list<{text}>" + (f"[{size}]" if size > 0 else "")
        return text

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether rows of a shape are this field's."""
        return len(shape) == len(self.shape) and all(
            want in (-1, size) for want, size in zip(self.shape, shape, strict=True)
        )


class Outputs(NamedTuple):
    """What a model calls its outputs, in its order. `keys` are those of an answer that is a dict, which fields have
    where nobody gave names; `names` are others, which fields may have.
    """

    keys: Sequence[str] = ()
    names: Sequence[str] = ()


def field(given: Sequence[Any]) -> TensorField:
    """A field as the job has it."""
    name, scalar, shape = given
    return TensorField(name, scalar, tuple(-1 if size is None else int(size) for size in shape))


def names_of(side: str, count: int, own: Sequence[str] = ()) -> list[str]:
    """The names where nobody gave any: `input`, or `input_1`, `input_2` once there are several. In the order of a
    model whose own names are these.
    """
    made = [side] if count == 1 else [f"{side}_{number}" for number in range(1, count + 1)]
    return list(own) if sorted(own) == sorted(made) else made


def placed(side: str, declared: Sequence[TensorField], *namings: Sequence[str]) -> list[TensorField]:
    """The fields declared, in the model's order: each by its name where they have the very names of one of the
    `namings`, else as they stand. Namings are in the model's order, and those of fewer names than there are fields say
    nothing; of several that fit the first counts.

    Raises Unsuited where a field that has one of these names stands in another's place.
    """
    asked = {each.name: each for each in declared}
    namings = tuple(names for names in namings if len(names) >= len(declared))
    for names in namings:
        first = names[: len(declared)]
        if sorted(asked) == sorted(first):
            return [asked[name] for name in first]
    for names in namings:
        moved = [each.name for each, name in zip(declared, names) if each.name != name and each.name in names]
        if moved:
            raise Unsuited(
                f"[steps.{side}] names the {side} '{moved[0]}' in another's place: name all of {', '.join(names)}"
            )
    return list(declared)


def one_by_one(ask: Callable[[Mapping[str, Any]], list[Any]], arrays: Mapping[str, Any]) -> list[Any]:
    """The answers of a model whose first axis is 1: each row asked by itself, and joined."""
    rows = len(next(iter(arrays.values())))
    found = [ask({name: array[row : row + 1] for name, array in arrays.items()}) for row in range(rows)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def answered_fields(
    declared: list[TensorField] | None, own: Outputs, arrays: list[Any], alone: list[Any], rows: int
) -> list[TensorField]:
    """The output fields in the model's order: as declared (`placed`), else as the answers to all rows and to one row
    show them. Raises Unsuited where declared and found differ.
    """
    for array in arrays:
        if array.ndim == 0 or len(array) != rows:
            came = "one value" if array.ndim == 0 else f"{len(array)} rows"
            raise Unsuited(f"it gives {came} for {rows} rows: its first axis must be the rows")
    shown = own.keys or names_of("output", len(arrays), own.names)
    found = [_shown(name, many, one) for name, many, one in zip(shown, arrays, alone, strict=True)]
    if declared is None:
        return found
    if len(declared) != len(found):
        raise Unsuited(f"[steps.output] has {len(declared)} fields, the model gives {len(found)}")
    fields = placed("output", declared, *own, shown)
    for want, have in zip(fields, found, strict=True):
        same = len(want.shape) == len(have.shape) and all(
            -1 in (a, b) or a == b for a, b in zip(want.shape, have.shape, strict=True)
        )
        if want.scalar != have.scalar or not same:
            raise Unsuited(f"[steps.output] {want.name} is {want.text}, the model gives {have.text}")
    return fields


def _shown(name: str, many: Any, one: Any) -> TensorField:
    shape = [a if a == b else -1 for a, b in zip(many.shape[1:], one.shape[1:], strict=True)]
    return TensorField(name, str(np.dtype(many.dtype)), tuple(shape))
