"""Golden inputs: the user's rows, or rows made from nothing but the schema and the model's digest.

Made rows are kept in the project with the answers that the model gave and the digest it had (`made.for`): a later
run, on whatever machine, expects the same answers of the same model, and asks a changed model the same questions.
Numbers come from SHA-256 in counter mode: a library's random generator may change, and with it the bundle's digest.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bundle.golden import IN, OUT, GoldenRows, Tolerance
from columns.columns import Columns
from columns.schema import Field, Schema
from columns.types import ListOf, Scalar, Type
from durable.files import write_atomically
from edgepack.errors import BadInput
from packager.dialects.ads_answers import are_of_other_code
from packager.dialects.ads_layout import SCORE
from packager.project import GoldenSource

ROWS = 8
MOST_VALUES = 400_000  # in all made rows together: an image has 150,000 values, and the rows travel as JSON
LARGEST_ROW = 4_000_000  # values in one made row; above, the user knows better what to ask
LARGEST = 256 << 20  # bytes of a file of golden rows

MADE_FOR = "made.for"  # in each kept row: the digest of the models that gave the answers

_TEXTS = ("string", "binary")
_WORDS = ("", "a", "edge", "Ångström 12", "0", "other", "x y", "yes")


@dataclass(frozen=True)
class Recipe:
    """How made rows look: the length of axes that the model leaves free, and the largest integer."""

    free_axis: int
    largest: int


@dataclass(frozen=True)
class Golden:
    """Rows that were found, and for which models they were made; None where they are the user's own. `left_out` says
    why answers that stand with them do not count, for people.
    """

    rows: GoldenRows
    made_for: str | None
    left_out: str = ""


# Tried in this order until the model answers: an index into a small table must stay small, an image must not be tiny.
RECIPES = (Recipe(8, 9), Recipe(8, 1), Recipe(8, 0), Recipe(32, 1), Recipe(224, 1), Recipe(1, 0))


def read_golden(path: Path, inputs: Schema, outputs: Schema, identity: str) -> Golden:
    """Read rows: pandas-records JSON, Arrow or Parquet. Raises BadInput that names file, row and field.

    Answers that were kept for another model than `identity` are left out: its questions are still good. So are those
    of the estimator of an ADS artifact whose score.py was edited since.
    """
    if path.stat().st_size > LARGEST:
        raise BadInput(f"golden rows '{path.name}' are larger than {LARGEST} bytes: a few hundred rows do")
    try:
        if path.suffix in (".arrow", ".feather", ".parquet"):
            return Golden(_read_columns(path, inputs, outputs), None)
        data, made_for = _without_mark(path.read_bytes())
        left_out = are_of_other_code(path)
        rows = GoldenRows.decode(_without_answers(data) if left_out else data, inputs, outputs)
    except BadInput as error:
        raise BadInput(f"golden rows '{path.name}': {error}", field=error.field) from error
    if left_out:
        return Golden(rows, made_for, f"those are the estimator's, and {SCORE} was edited since prepare()")
    return Golden(rows if made_for in (None, identity) else GoldenRows(rows.inputs), made_for)


def check_tolerance(tolerance: Tolerance, outputs: Sequence[Schema]) -> None:
    """Raise BadInput for a name in a table of tolerances that no step gives: it would loosen nothing, silently."""
    there = list(dict.fromkeys(name for schema in outputs for name in schema.names))
    for name in tolerance if isinstance(tolerance, Mapping) else ():
        if name not in there:
            near = difflib.get_close_matches(name, there, 1)
            hint = f"is it '{near[0]}'?" if near else f"there is {', '.join(there)}"
            raise BadInput(
                f"[golden] tolerance names '{name}', which no step gives: {hint}", field=f"golden.tolerance.{name}"
            )


def made_rows(inputs: Schema, digest: str, recipe: Recipe) -> Columns:
    """Rows that depend on nothing but their arguments: normal, zeros, small integers, ones."""
    values = sum(_size(field.type, recipe) for field in inputs)
    rows = max(2, min(ROWS, MOST_VALUES // max(1, values)))
    arrays: dict[str, Any] = {}
    for field in inputs:
        stream = _numbers(f"{digest} {field.name} {field.text}".encode())
        arrays[field.name] = _column(field, rows, recipe, stream)
    return Columns.of(inputs, arrays)


def recipes(inputs: Schema) -> list[Recipe]:
    """The recipes worth a try: those that differ for these fields, and none that would fill the memory."""
    tried: dict[tuple[int, int], Recipe] = {}
    for recipe in RECIPES:
        size = sum(_size(field.type, recipe) for field in inputs)
        has_integers = any("int" in field.text for field in inputs)
        if size <= LARGEST_ROW:
            tried.setdefault((size, recipe.largest if has_integers else 0), recipe)
    return list(tried.values())


def keep(rows: GoldenRows, source: GoldenSource, cache: Path, identity: str) -> str | None:
    """Keep made rows in the project; where that is read-only, in the user's cache. Returns a note when it is the
    latter.
    """
    marked = [{**row, MADE_FOR: identity} for row in orjson.loads(rows.encode())]
    data = b"[\n" + b",\n".join(orjson.dumps(row) for row in marked) + b"\n]\n"
    try:
        write_atomically(source.kept, data)
        return None
    except OSError as error:
        kept = cached(cache, identity)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, data)
        except OSError:
            return f"golden rows were made and not kept: '{source.kept.parent}' is not writable ({error.strerror})"
        return f"golden rows are kept in '{kept}': '{source.kept.parent}' is not writable ({error.strerror})"


def cached(cache: Path, identity: str) -> Path:
    """Where made rows lie for a model in a project that cannot be written."""
    return cache / "golden" / f"{identity.removeprefix('sha256:')}.json"


def _without_mark(data: bytes) -> tuple[bytes, str | None]:
    """Rows without the mark of kept ones, and what it says."""
    if MADE_FOR.encode() not in data:
        return data, None
    try:
        rows = orjson.loads(data)
        marks = {row.pop(MADE_FOR, None) for row in rows}
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return data, None  # whoever reads it next says what is wrong
    if len(marks) != 1:
        raise BadInput(f"its rows differ in '{MADE_FOR}': delete the file to have rows made anew")
    return orjson.dumps(rows), str(marks.pop())


def _without_answers(data: bytes) -> bytes:
    """Rows without their fields `out.…`; what is no list of objects stays: whoever reads it next says what is wrong."""
    try:
        rows = orjson.loads(data)
        return orjson.dumps([{key: row[key] for key in row if not key.startswith(OUT)} for row in rows])
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return data


def _read_columns(path: Path, inputs: Schema, outputs: Schema) -> GoldenRows:
    """Arrow and Parquet carry names and types: `in.x` or `x`, and all of `out.…` or none."""
    from columns.arrow import decode_arrow, read_parquet

    found = read_parquet(path) if path.suffix == ".parquet" else decode_arrow(path.read_bytes())
    expected = {name.removeprefix(OUT): array for name, array in found.arrays.items() if name.startswith(OUT)}
    given = {name.removeprefix(IN): array for name, array in found.arrays.items() if not name.startswith(OUT)}
    if len(expected) + len(given) != len(found.arrays):
        raise BadInput("a field is there twice: write it as 'in.<field>' or bare, not both")
    return GoldenRows(Columns.of(inputs, given), Columns.of(outputs, expected) if expected else None)


def _column(field: Field, rows: int, recipe: Recipe, stream: Iterator[int]) -> np.ndarray[Any, Any]:
    shape, scalar = _shape(field.type, recipe)
    count = int(np.prod(shape, dtype=np.int64))
    made = [_values(scalar, row, count, recipe, stream) for row in range(rows)]
    if scalar.name not in _TEXTS:
        return np.array(made, dtype=scalar.dtype).reshape(rows, *shape)
    column = np.empty(rows, dtype=object)
    column[:] = [np.array(row, dtype=object).reshape(shape).tolist() if shape else row[0] for row in made]
    return column


def _values(scalar: Scalar, row: int, count: int, recipe: Recipe, stream: Iterator[int]) -> list[Any]:
    """One row's values. Row 1 is zeros, row 2 small integers, row 3 ones; all others are drawn."""
    if scalar.name == "binary":
        return [_WORDS[number % len(_WORDS)].encode() for number in islice(stream, count)]
    if scalar.name == "string":
        return [_WORDS[number % len(_WORDS)] for number in islice(stream, count)]
    if scalar.name == "bool":
        return [number % 2 == 1 and row != 1 for number in islice(stream, count)]
    if row == 1:
        return [0] * count
    if not scalar.name.startswith("float"):
        return [number % (recipe.largest + 1) for number in islice(stream, count)]
    if row == 2:
        return [number % 10 for number in islice(stream, count)]
    if row == 3:
        return [1] * count
    return [_normal(number) for number in islice(stream, count)]


def _normal(number: int) -> float:
    """A sum of four uniform numbers, centred: bell-shaped, between -6 and 6, and exact in every float and on every
    machine.
    """
    parts = sum((number >> shift) & 0xFF for shift in (0, 8, 16, 24))
    return (parts - 510) * 3 / 256


def _numbers(seed: bytes) -> Iterator[int]:
    """32-bit numbers without end."""
    block = 0
    while True:
        digest = hashlib.sha256(seed + block.to_bytes(8, "big")).digest()
        yield from (int.from_bytes(digest[at : at + 4], "big") for at in range(0, 32, 4))
        block += 1


def _shape(type_: Type, recipe: Recipe) -> tuple[tuple[int, ...], Scalar]:
    shape: list[int] = []
    while isinstance(type_, ListOf):
        shape.append(recipe.free_axis if type_.size is None else type_.size)
        type_ = type_.item
    if not isinstance(type_, Scalar):
        raise BadInput(f"golden rows cannot be made for the type {type_}: give [golden] rows")
    return tuple(shape), type_


def _size(type_: Type, recipe: Recipe) -> int:
    return int(np.prod(_shape(type_, recipe)[0], dtype=np.int64))
