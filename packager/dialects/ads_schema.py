"""The schema files of ADS, `input_schema.json` and `output_schema.json`, as fields of ours.

Each is `{"schema": [attribute, ...]}`; of an attribute count `name`, `dtype` (pandas' word), `feature_type`,
`required`, `order`, and `shape`: that of one row, which `edgepack.ads` writes for a network's tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from columns.schema import Schema
from columns.types import StructOf, clip, parse_type
from edgepack.errors import BadInput
from packager.archives import Tree

INPUT, OUTPUT = "input_schema.json", "output_schema.json"
PREDICTION = "prediction"
LARGEST = 4 << 20  # bytes of a file
MOST_FIELDS = 4096

_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_NULLABLE = {"boolean": "bool"} | {
    f"{u}Int{bits}": f"{u.lower()}int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)
}
_BY_FEATURE = {"integer": "int64", "discrete": "int64", "continuous": "float64", "boolean": "bool"}
_ADVICE = (
    "write it with prepare(..., X_sample=..., y_sample=...), or name the fields in [steps.{side}] of edgepack.toml"
)


def fields_of(tree: Tree, file: str) -> dict[str, str]:
    """Field → type of a schema file, in its order. Raises BadInput that names the file, and the attribute at fault."""
    side = "input" if file == INPUT else "output"
    advice = _ADVICE.format(side=side)
    if file not in tree.files:
        raise BadInput(f"'{tree.name}' has no {file}: {advice}", field=f"steps.{side}")
    attributes = attributes_of(tree, file)
    if not attributes:
        raise BadInput(f"{file} in '{tree.name}' names no field: {advice}", field=f"steps.{side}")
    if len(attributes) > MOST_FIELDS:
        raise BadInput(f"{file} in '{tree.name}' has {len(attributes)} fields: expected at most {MOST_FIELDS}")
    if all(isinstance(each.get("order"), int) for each in attributes):
        attributes.sort(key=lambda each: int(each["order"]))
    found: dict[str, str] = {}
    for number, each in enumerate(attributes):
        name, type_ = _field(each, f"{file} in '{tree.name}': attribute {number}")
        if name in found:
            raise BadInput(f"{file} in '{tree.name}' has two fields '{name}': rename one", field=name)
        found[name] = type_
    _check(found, f"{file} in '{tree.name}'")
    return found


def prediction_of(fields: Mapping[str, str]) -> str:
    """The type of one row's prediction: that of the only field, a list where all are alike, else an object."""
    if len(fields) == 1:
        return next(iter(fields.values()))
    kinds = {type_.removesuffix("?") for type_ in fields.values()}
    if len(kinds) == 1:
        return f"list<{kinds.pop()}>[{len(fields)}]"
    return object_of(fields, f"{OUTPUT}: ")


def object_of(members: Mapping[str, str], where: str = "") -> str:
    """The type of an object. Raises BadInput that names the member whose name no type can hold, as `p>0.5` is."""
    for name in members:
        try:
            found = parse_type(f"struct<{name}: bool>")
        except BadInput:
            found = None
        if not isinstance(found, StructOf) or found.fields[0][0] != name:
            raise BadInput(
                f"{where}the name '{clip(name)}' has a sign that types are written with: rename it", field=name
            )
    return f"struct<{', '.join(f'{name}: {type_}' for name, type_ in members.items())}>"


def attributes_of(tree: Tree, file: str) -> list[dict[str, Any]]:
    """The attributes as they are written. Raises BadInput for what is no schema."""
    where = f"{file} in '{tree.name}'"
    try:
        said = json.loads(tree.read(file, LARGEST))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {' '.join(str(error).split())[:200]}") from error
    found = said.get("schema", said.get("Schema")) if isinstance(said, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadInput(f'{where} is no schema: expected {{"schema": [{{"name": ..., "dtype": ...}}, ...]}}')
    return found


def _field(said: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Name and type of an attribute. ADS numbers the columns of an array: the names are the digits then."""
    name, dtype = said.get("name"), said.get("dtype")
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not str(name):
        raise BadInput(f"{where} has no name")
    if not isinstance(dtype, str):
        raise BadInput(f"{where} ('{name}') has no dtype: expected one like \"float64\"", field=str(name))
    type_ = _shaped(_scalar(dtype, said.get("feature_type"), f"{where} ('{name}')"), said.get("shape"), where)
    return str(name), type_ if said.get("required", True) is not False or said.get("shape") else f"{type_}?"


def _scalar(dtype: str, feature: Any, where: str) -> str:
    if _NUMBERS.fullmatch(dtype):
        return dtype
    if dtype in _NULLABLE:
        return _NULLABLE[dtype]
    if dtype == "category" or dtype == "object":
        return _BY_FEATURE.get(str(feature).lower(), "string")
    if dtype in ("str", "string") or dtype.startswith(("datetime64", "<U", "|S", "string[")):
        return "string"  # times travel as their ISO text, as in the JSON that ADS sends
    raise BadInput(f"{where} has dtype {dtype[:40]!r}: expected a number, bool, object, category, string or datetime64")


def _shaped(type_: str, shape: Any, where: str) -> str:
    if shape is None:
        return type_
    if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
        raise BadInput(f"{where} has shape {str(shape)[:40]}: expected the lengths of one row, as [28, 28]")
    for size in reversed(shape):
        type_ = f"list<{type_}>[{size}]"
    return type_


def _check(found: Mapping[str, str], where: str) -> None:
    try:
        Schema.parse(found)
    except BadInput as error:
        raise BadInput(f"{where}: {error}", field=error.field) from error
