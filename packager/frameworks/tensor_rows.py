"""How a model's tensors become rows, for every format that has shapes.

Where a tensor's first axis is free or 1, it is the rows; a larger fixed first axis makes the whole tensor one row. The
remaining axes nest as lists: fixed ones with their size, free ones without. The runtime tells the two readings apart
by rank alone, so a type given in `[steps.input]` may choose the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from columns.schema import Schema
from columns.types import ListOf, Scalar, Type
from edgepack.errors import BadInput

Dim = int | str | None


def row_axes(dims: Sequence[Dim]) -> tuple[Dim, ...]:
    """The axes of one row."""
    if dims and (_size(dims[0]) is None or dims[0] == 1):
        return tuple(dims[1:])
    return tuple(dims)


def nested(scalar: str, dims: Sequence[Dim]) -> Type:
    """The type of a tensor with these axes."""
    made: Type = Scalar(scalar)
    for dim in reversed(dims):
        made = ListOf(made, _size(dim))
    return made


def scalar_of(type_: Type) -> str:
    """What a type's innermost values are."""
    while isinstance(type_, ListOf):
        type_ = type_.item
    return str(type_)


def fits(given: Type, found: Type) -> bool:
    """Whether a given type says the same as the model's, or more about an axis that the model leaves free."""
    if isinstance(given, ListOf) and isinstance(found, ListOf):
        same = found.size is None or found.size == given.size
        return same and not given.nullable and fits(given.item, found.item)
    return given == found


def asked_fields(side: str, names: Sequence[str], given: Mapping[str, str]) -> Schema:
    """The types given in `[steps.input]` or `[steps.output]`. Raises BadInput when a name is missing or unknown."""
    asked = Schema.parse(given)
    wrong = [name for name in asked.names if name not in names] or [name for name in names if name not in asked]
    if wrong:
        raise BadInput(
            f"[steps.{side}] {'names' if wrong[0] in asked else 'lacks'} '{wrong[0]}', the model has "
            f"{', '.join(names)}",
            field=f"steps.{side}.{wrong[0]}",
        )
    return asked


def _size(dim: Dim) -> int | None:
    return dim if isinstance(dim, int) and dim > 0 else None
