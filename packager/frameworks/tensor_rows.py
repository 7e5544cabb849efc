"""How a model's tensors become rows, for every format that has shapes.

Where a tensor's first axis is free or 1, it is the rows; a larger fixed first axis makes the whole tensor one row. The
remaining axes nest as lists: fixed ones with their size, free ones without. The runtime tells the two readings apart
by rank alone, so a type given in `[steps.input]` may choose the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from columns.schema import Field, Schema
from columns.types import ListOf, Scalar, Type
from edgepack.errors import BadInput

Dim = int | str | None
Given = Mapping[str, str]
LONGEST_LIST = 200  # characters of names in an error line


@dataclass(frozen=True)
class Tensor:
    """An input or output, as its format tells of it. `elements` are the scalars that a schema may have for its values,
    the model's own first; `dims` is None where the model does not say its shape.
    """

    name: str
    elements: tuple[str, ...]
    dims: tuple[Dim, ...] | None

    @property
    def readings(self) -> list[Type]:
        """The types that rows of it may have, the usual one first."""
        if self.dims is None:
            return []
        return [nested(each, axes) for each in self.elements for axes in (row_axes(self.dims), self.dims)]


def schemas(
    model: str, sides: tuple[Sequence[Tensor], Sequence[Tensor]], tensor_fields: Sequence[str],
    inputs: Given | None, outputs: Given | None,
) -> tuple[Schema, Schema]:  # fmt: skip
    """The fields that a step takes and gives: those of the model in a file of this name, its inputs renamed by
    `tensor_fields`.

    `inputs` and `outputs` are the types given in `[steps.input]` and `[steps.output]`: they must agree with the model.
    They may fix an axis that the model leaves free, take the whole tensor as one row, choose another of its `elements`,
    and say what a model without shapes does not. Raises BadInput that names the field, what was found and what was
    expected.
    """
    own = [tensor.name for tensor in sides[0]]
    if tensor_fields and len(tensor_fields) != len(own):
        raise BadInput(
            f"tensor_fields has {len(tensor_fields)} names, model '{model}' has {len(own)} inputs: {_listed(own)}",
            field="tensor_fields",
        )
    return (
        _side(model, "input", list(tensor_fields) or own, sides[0], inputs),
        _side(model, "output", [tensor.name for tensor in sides[1]], sides[1], outputs),
    )


def _side(model: str, side: str, names: list[str], tensors: Sequence[Tensor], given: Given | None) -> Schema:
    if not names or not all(names) or len(set(names)) != len(names):
        raise BadInput(f"model '{model}' has {side}s without a name of their own: {_listed(names)}")
    asked = None if given is None else asked_fields(side, names, given)
    fields = [_field(model, side, name, tensor, asked) for name, tensor in zip(names, tensors, strict=True)]
    return Schema(tuple(fields))


def _field(model: str, side: str, name: str, tensor: Tensor, asked: Schema | None) -> Field:
    readings = tensor.readings
    if asked is None and not readings:
        raise BadInput(
            f"{side} '{tensor.name}' of model '{model}' has no shape: give its type in [steps.{side}], "
            "or infer shapes before packaging (onnx.shape_inference)"
        )
    if asked is None:
        return Field(name, readings[0])
    given = asked[name]
    if scalar_of(given.type) in tensor.elements and any(fits(given.type, each) for each in readings or [given.type]):
        return given
    found = readings[0] if readings else f"{tensor.elements[0]} of unknown shape"
    raise BadInput(f"[steps.{side}] {name} is {given.text}, the model has {found}", field=f"steps.{side}.{name}")


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
            f"[steps.{side}] {'names' if wrong[0] in asked else 'lacks'} '{wrong[0]}', the model has {_listed(names)}",
            field=f"steps.{side}.{wrong[0]}",
        )
    return asked


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)[:LONGEST_LIST]


def _size(dim: Dim) -> int | None:
    return dim if isinstance(dim, int) and dim > 0 else None
