"""The grammar of `edgepack.toml` (docs/edgepack-toml.md), read strictly: unknown keys are refused by name.

Values are checked against the structs below. All of the grammar is read; `refuse_unbuilt` names the keys that this
version does not act on yet, because a key that is silently ignored is worse than one that is refused.
"""

from __future__ import annotations

import difflib
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

import msgspec

from bundle.pipeline import LogPolicy, Resources
from edgepack.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

LARGEST = 1 << 20  # bytes of an edgepack.toml


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all tables."""


class PipelineTable(Table, frozen=True):
    """`[pipeline]`."""

    name: str | None = None


class OptimizeTable(Table, frozen=True):
    """`optimize` of a step, or of a model that a step names."""

    quantize: str | None = None  # dynamic, static: checked by the project, which says what they are
    tolerance: float | None = None


class StepTable(Table, frozen=True):
    """One `[[steps]]`."""

    name: str | None = None
    model: str | None = None
    framework: str | None = None
    tensor_fields: list[str] = []
    batch: Literal["any", "single"] = "any"
    requirements: Literal["exact", "compatible"] | None = None
    input: dict[str, str] | None = None
    output: dict[str, str] | None = None
    optimize: OptimizeTable | None = None
    image: str | None = None
    split: dict[str, int] | None = None
    key: str | None = None
    shadow: list[str] | None = None


class ModelTable(Table, frozen=True):
    """One `[models.<name>]`."""

    model: str
    framework: str | None = None
    optimize: OptimizeTable | None = None


class GoldenTable(Table, frozen=True):
    """`[golden]`."""

    rows: str | None = None
    tolerance: float | dict[str, float] = 1e-5


class ProjectTable(Table, frozen=True):
    """The whole file."""

    pipeline: PipelineTable = PipelineTable()
    steps: list[StepTable] = []
    models: dict[str, ModelTable] = {}
    validations: dict[str, str] = {}
    golden: GoldenTable = GoldenTable()
    log: LogPolicy = LogPolicy()
    resources: Resources = Resources()


# Keys of a step that later versions act on.
_UNBUILT: tuple[str, ...] = ()


def read_toml(path: Path) -> ProjectTable:
    """Read an `edgepack.toml`. Raises BadInput that names file, table and key."""
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"'{path.name}' is larger than {LARGEST} bytes: expected a few settings")
        found = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise BadInput(f"'{path}' does not read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"'{path.name}' is not TOML: {error}") from error
    _check_keys(path.name, "", found, ProjectTable)
    try:
        table = msgspec.convert(found, ProjectTable)
    except msgspec.ValidationError as error:
        raise BadInput(f"'{path.name}': {_plainly(str(error))}") from error
    refuse_unbuilt(path.name, table)
    return table


def refuse_unbuilt(file: str, table: ProjectTable) -> None:
    """Raise BadInput for the first key that this version reads and does not act on."""
    for number, step in enumerate(table.steps):
        for key in _UNBUILT:
            if getattr(step, key) is not None:
                raise BadInput(
                    f"'{file}': steps[{number}].{key} is not in this version: remove it", field=f"steps.{key}"
                )


def _check_keys(file: str, table: str, found: Any, expected: Any) -> None:
    """Walk values and struct types together and refuse a key that is not known, with the nearest one that is."""
    if isinstance(expected, types.UnionType):
        expected = next(each for each in typing.get_args(expected) if each is not type(None))
    if typing.get_origin(expected) is list and isinstance(found, list):
        for number, each in enumerate(found):
            _check_keys(file, f"{table}[{number}]", each, typing.get_args(expected)[0])
    elif typing.get_origin(expected) is dict and isinstance(found, dict):
        for key, each in found.items():
            _check_keys(file, f"{table}.{key}", each, typing.get_args(expected)[1])
    # asked of its type: before Python 3.11 an alias such as list[str] passes for a class itself
    elif issubclass(type(expected), type) and issubclass(expected, msgspec.Struct) and isinstance(found, dict):
        known = typing.get_type_hints(expected)
        for key, each in found.items():
            if key not in known:
                raise BadInput(f"'{file}': {_unknown(table, key, list(known))}", field=f"{table}.{key}".lstrip("."))
            _check_keys(file, f"{table}.{key}".lstrip("."), each, known[key])


def _unknown(table: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known)}"
    return f"{table or 'the file'} has an unknown key '{key}': {hint}"


def _plainly(message: str) -> str:
    """msgspec's message with the place in front: `steps[0].name: expected str, got int`."""
    what, _, place = message.partition(" - at `$")
    place = place.rstrip("`").lstrip(".").replace("[...]", "")
    what = (
        what.replace("`", "'")
        .replace(" | null'", "'")
        .replace("Expected 'str'", "Expected text")
        .replace("Object missing required field", "lacks")
        .replace("'float | object'", "'float', or a table of them")
    )
    return f"{place or 'the file'}: {what[:1].lower()}{what[1:]}"
