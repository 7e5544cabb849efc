"""An MLflow model's signature as fields: columns, tensors, optional columns and parameters.

Columns become fields of their own names, a tensor one field whose first axis is the rows. What has no name is called
`inputs` and `predictions`. A column that may be missing is nullable, and so is every parameter: null is its default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from columns.schema import Schema
from edgepack.errors import BadInput
from packager.frameworks.tensor_rows import nested, row_axes

# MLflow's name of a type → ours (its `DataType`)
_SCALARS = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "binary": "binary",
    "datetime": "timestamp[ns]",
}
_DTYPES = {"object": "string", "str": "string", "string": "string", "datetime64[ns]": "timestamp[ns]"}  # of tensors
_NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float16", "float32")
_MOST_DEPTH = 16
_INPUTS, _OUTPUTS = "inputs", "predictions"


class Untyped(BadInput):
    """A signature that leaves the type of a value open: its fields must be given in the project."""


@dataclass(frozen=True)
class Side:
    """What a model takes or gives. `names` are MLflow's own, in order, None where it has none; `fields` name → type."""

    fields: Mapping[str, str]
    names: tuple[str | None, ...]
    is_tensors: bool = False
    is_whole: bool = False  # a tensor has no free first axis: each row is asked by itself
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """What `signature` in MLmodel says; a side that it does not say is None."""

    input: Side | None = None
    output: Side | None = None
    params: Mapping[str, str] = field(default_factory=dict)  # name → type of the field, nullable


def read_signature(said: Any, where: str) -> Signature:
    """Read the `signature` of an MLmodel. Raises BadInput for what is none, `Untyped` for types that are left open."""
    if said is None:
        return Signature()
    if not isinstance(said, dict):
        raise BadInput(f"signature in {where} is no table: expected inputs, outputs and params")
    found = {side: _listed(said.get(side), f"signature.{side} in {where}") for side in ("inputs", "outputs", "params")}
    sides = {side: _side(found[side], name, where) for side, name in (("inputs", _INPUTS), ("outputs", _OUTPUTS))}
    params = {_named(each, where): _param(each, where) for each in found["params"]}
    twice = next((name for name in params if sides["inputs"] and name in sides["inputs"].fields), None)
    if twice is not None:
        raise BadInput(f"signature in {where} has a column and a parameter '{twice}': rename one")
    return Signature(sides["inputs"], sides["outputs"], params)


def _listed(said: Any, where: str) -> list[dict[str, Any]]:
    """One part of a signature: JSON in a string."""
    if said is None:
        return []
    try:
        found = json.loads(said) if isinstance(said, str) else said
        json.dumps(found, ensure_ascii=False, default=str).encode()  # half a letter is JSON, and can be written nowhere
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadInput(f"{where} is no list of fields: save the model again")
    return found


def _side(said: Sequence[dict[str, Any]], unnamed: str, where: str) -> Side | None:
    if not said:
        return None
    is_tensors = [each.get("type") == "tensor" for each in said]
    if any(is_tensors) and not all(is_tensors):
        raise BadInput(f"signature in {where} mixes tensors and columns: expected one kind")
    names = tuple(each.get("name") if isinstance(each.get("name"), str) else None for each in said)
    ours = [name or (unnamed if len(said) == 1 else f"{unnamed}_{at}") for at, name in enumerate(names)]
    if len(set(ours)) != len(ours):
        raise BadInput(f"signature in {where} names '{next(n for n in ours if ours.count(n) > 1)}' twice: rename one")
    if all(is_tensors):
        dims = [_dims(each, name, where) for each, name in zip(said, ours, strict=True)]
        types = [_tensor(each, dim, name, where) for each, dim, name in zip(said, dims, ours, strict=True)]
        whole = any(dim and row_axes(dim) == tuple(dim) for dim in dims)
        found = Side(dict(zip(ours, types, strict=True)), names, True, whole)
    else:
        types = [_column(each, name, where) for each, name in zip(said, ours, strict=True)]
        optional = tuple(name for name, type_ in zip(ours, types, strict=True) if type_.endswith("?"))
        found = Side(dict(zip(ours, types, strict=True)), names, optional=optional)
    Schema.parse(found.fields)
    return found


def _column(said: Mapping[str, Any], name: str, where: str) -> str:
    return _type(said, name, where) + ("?" if said.get("required") is False or said.get("optional") is True else "")


def _type(said: Any, name: str, where: str, depth: int = 0) -> str:
    """A type as MLflow nests it: a scalar, an array of `items`, an object of `properties`."""
    kind = said.get("type") if isinstance(said, dict) else None
    if isinstance(kind, str) and kind in _SCALARS:
        return _SCALARS[kind]
    made = _NESTED.get(kind) if isinstance(kind, str) and depth < _MOST_DEPTH else None
    if made is None:
        raise Untyped(
            f"signature in {where} leaves open what '{name}' is (type {str(kind)[:40]!r}): give [steps.input] and "
            "[steps.output]"
        )
    return made(said, name, where, depth + 1)


def _array(said: Mapping[str, Any], name: str, where: str, depth: int) -> str:
    return f"list<{_type(said.get('items'), name, where, depth)}>"


def _object(said: Mapping[str, Any], name: str, where: str, depth: int) -> str:
    properties = said.get("properties")
    if not isinstance(properties, dict) or not properties:
        raise BadInput(f"signature in {where}: '{name}' is an object without properties")
    inner = (
        f"{key}: {_type(each, f'{name}.{key}', where, depth)}"
        + ("?" if isinstance(each, dict) and each.get("required") is False else "")
        for key, each in properties.items()
    )
    return f"struct<{', '.join(inner)}>"


_NESTED: dict[str, Callable[[Mapping[str, Any], str, str, int], str]] = {"array": _array, "object": _object}


def _dims(said: Mapping[str, Any], name: str, where: str) -> list[int | None]:
    spec = said.get("tensor-spec")
    shape = spec.get("shape") if isinstance(spec, dict) else None
    if not isinstance(shape, list) or len(shape) > _MOST_DEPTH or not all(type(size) is int for size in shape):
        raise BadInput(f"signature in {where}: tensor '{name}' has no shape: save the model again")
    return [size if size > 0 else None for size in shape]


def _tensor(said: Mapping[str, Any], dims: Sequence[int | None], name: str, where: str) -> str:
    dtype = str(said["tensor-spec"].get("dtype"))
    scalar = dtype if dtype in (*_NUMBERS, "float64") else _DTYPES.get(dtype)
    if scalar is None:
        raise Untyped(f"signature in {where}: tensor '{name}' has dtype '{dtype[:40]}': give its type in the project")
    return str(nested(scalar, row_axes(list(dims))))


def _named(said: Mapping[str, Any], where: str) -> str:
    name = said.get("name")
    if not isinstance(name, str) or not name:
        raise BadInput(f"signature in {where} has a parameter without a name")
    return name


def _param(said: Mapping[str, Any], where: str) -> str:
    """A parameter's type: one value, or a list where it has a shape."""
    name = _named(said, where)
    inner = _type({**said, "type": said.get("type") or said.get("dtype")}, name, where)
    return f"{f'list<{inner}>' if isinstance(said.get('shape'), list) else inner}?"
