"""Runs the child that loads and converts an artefact, and reads what it left; nothing it says is trusted to be well
formed.

The child (`packager/convert/`) runs in a pinned environment inside a sandbox: it sees the artefact, its libraries and
one folder of its own, has no network, and dies on its deadline.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from bundle.task import NETWORK as NETWORK_FILE
from bundle.task import TOKENIZER, TaskSpec
from columns.columns import Columns
from columns.schema import Schema
from columns.types import ListOf, Scalar, Type
from columns.values import column_from_values
from edgepack.errors import BadInput, RuntimeFailed
from packager.confined import LARGEST_FILE, left, result_of, run_confined
from packager.environments import Environment

DEADLINE_S, TRIAL_S = 300.0, 120.0
LARGEST_ROWS = 1 << 30  # bytes of rows in JSON, which take ten times as many once they are read
ESTIMATORS = ("float32", "double")  # native attempts in the order in which they are tried
NETWORKS = ("onnx",)
NATIVE = (*ESTIMATORS, *NETWORKS)


class _Attempt(msgspec.Struct, frozen=True):
    strategy: str
    input: list[tuple[str, str]]
    output: list[tuple[str, str]]
    methods: dict[str, str]
    reason: str | None = None
    task: TaskSpec | None = None


class _Result(msgspec.Struct, frozen=True):
    """`result.json`."""

    refused: str | None = None
    model: str = ""
    versions: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    training: dict[str, Any] = {}
    layout: str = ""
    names: list[str] | None = None
    attempts: list[_Attempt] = []


@dataclass(frozen=True)
class Program:
    """A child's program: the module that runs, its native attempts, how it reads a field's type; how long it may take,
    and a converted model to answer the same rows.
    """

    module: str
    strategies: tuple[str, ...]
    describe: Callable[[str, Type, str], tuple[Any, ...]]
    timeout_s: float = DEADLINE_S
    trial_s: float = TRIAL_S


@dataclass(frozen=True)
class Attempt:
    """One way to run the model: its fields, rows with the original's answers of two runs, and the converted model.

    `model` is None where the conversion did not end well; `reason` says why.
    """

    strategy: str
    input: Schema
    output: Schema
    methods: Mapping[str, str]
    rows: Columns
    answers: Columns
    again: Columns
    model: Path | None
    reason: str | None
    task: TaskSpec | None = None  # around the model
    beside: tuple[Path, ...] = ()  # files that the task reads

    @property
    def files(self) -> dict[str, Path]:
        """The converted model and what belongs to it, by the names that they have in a bundle."""
        model = {} if self.model is None else {NETWORK_FILE: self.model}
        return {**model, **{path.name: path for path in self.beside}}


@dataclass(frozen=True)
class Converted:
    """All that the child found."""

    model: str
    versions: Mapping[str, str]
    parameters: Mapping[str, Any]
    training: Mapping[str, Any]
    layout: str
    names: list[str] | None
    attempts: tuple[Attempt, ...]


def convert(
    artefact: Path,
    form: str,
    environment: Environment,
    folder: Path,
    *,
    inputs: Schema | None,
    outputs: Schema | None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    program: Program | None = None,
    timeout_s: float | None = None,
) -> Converted:
    """Load, ask and convert an artefact in a child. `rows` are the user's, as objects; `program` is that of
    estimators where none is given, and says how long it may take where `timeout_s` does not.

    Raises BadInput with the child's reason when the artefact cannot be packaged; RuntimeFailed when the child crashed,
    hung or ran out of memory.
    """
    program = program or ESTIMATOR
    folder.mkdir(parents=True, exist_ok=True)
    job: dict[str, Any] = {
        "model": str(artefact.resolve()),
        "form": form,
        "folder": str(folder.resolve()),
        "input": None if inputs is None else _described(inputs, "input", program),
        "output": None if outputs is None else _described(outputs, "output", program),
        "attempts": [{"strategy": strategy} for strategy in (*program.strategies, "python")],
    }
    if rows is not None:
        (folder / "given.json").write_bytes(msgspec.json.encode(rows))
        job["rows"] = str((folder / "given.json").resolve())
    run_confined(program.module, job, artefact, environment, folder, timeout_s or program.timeout_s, "converting")
    return read_result(folder, artefact)


def read_result(folder: Path, artefact: Path) -> Converted:
    """What the child left in its folder. Raises as `convert` does."""
    result = result_of(folder, _Result, f"converting '{artefact.name}'")
    if result.refused is not None:
        raise BadInput(f"model '{artefact.name}': {_line(result.refused)}")
    attempts = tuple(_attempt(folder, each, artefact) for each in result.attempts)
    return Converted(
        result.model, result.versions, result.parameters, result.training, result.layout, result.names, attempts
    )


def _described(schema: Schema, side: str, program: Program) -> list[tuple[Any, ...]]:
    """Fields as the child reads them: name, scalar, and what the program wants to know of the lists."""
    return [(field.name, *program.describe(field.name, field.type, side)) for field in schema]


def _tensor(name: str, type_: Type, side: str) -> tuple[str, list[int | None]]:
    """Scalar and axes of one row, None where a length is not said."""
    found = type_.tensor_dtype_and_shape()
    if found is None or type_.nullable:
        raise BadInput(
            f"[steps.{side}] {name} is {type_}: this framework takes and gives numbers and nested lists of them, "
            "without nulls",
            field=f"steps.{side}.{name}",
        )
    return str(found[0]), list(found[1])


def _flat(name: str, type_: Type, side: str) -> tuple[str, int | None]:
    """Scalar and length of lists (-1 where it is not said, None for a single value)."""
    where = f"steps.{side}.{name}"
    inner, size = type_, None
    if isinstance(type_, ListOf):
        inner, size = type_.item, -1 if type_.size is None else type_.size
    is_nullable = type_.nullable or inner.nullable
    if not isinstance(inner, Scalar) or is_nullable or not (inner.name == "string" or inner.name in _NUMBERS):
        raise BadInput(
            f"[steps.{side}] {name} is {type_}: this framework takes and gives numbers, strings and lists of them, "
            "without nulls",
            field=where,
        )
    return inner.name, size


_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_NUMBERS = ("bool", "float16", "float32", "float64", *_INTEGERS)


def _as_written(name: str, type_: Type, side: str) -> tuple[str]:
    return (str(type_),)


ESTIMATOR = Program("convert.job", ESTIMATORS, _flat)
NETWORK = Program("convert.nets.job", NETWORKS, _tensor)
# a large pipeline answers a long text in seconds, and is asked all rows twice
PIPELINE = Program("convert.nets.hugging_face", NETWORKS, _as_written, timeout_s=3 * DEADLINE_S, trial_s=3 * TRIAL_S)


# what reading raises for files that are not as they should be
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, MemoryError, RecursionError, NotImplementedError),
    *(zipfile.BadZipFile, msgspec.MsgspecError, BadInput),
)


def _attempt(folder: Path, said: _Attempt, artefact: Path) -> Attempt:
    try:
        inputs, outputs = Schema.parse(dict(said.input)), Schema.parse(dict(said.output))
        read = _columns_read(folder, _plain(said.strategy))
        sides = (("in", inputs), ("out", outputs), ("again", outputs))
        rows, answers, again = (read(side, schema) for side, schema in sides)
    except _UNREADABLE as error:
        raise RuntimeFailed(f"converting '{artefact.name}' left rows that do not read: {error}") from error
    reason = None if said.reason is None else _line(said.reason)
    model, beside = None, None
    if reason is None and said.strategy in NATIVE:
        try:
            model = _plain_file(folder, f"{said.strategy}.onnx")
            beside = _plain_file(folder, TOKENIZER) if model and said.task else None
        except OSError as error:
            raise RuntimeFailed(f"converting '{artefact.name}' left no model that reads: {error}") from error
        reason = None if model else "the converter left no model"
    return Attempt(
        said.strategy, inputs, outputs, said.methods, rows, answers, again, model, reason, said.task,
        () if beside is None else (beside,),
    )  # fmt: skip


def _plain_file(folder: Path, name: str) -> Path | None:
    """A file of the child's that goes on by its path, None where there is none. Raises OSError for links and pipes.

    The child has ended and can have started no other: what a path leads to stays.
    """
    with suppress(FileNotFoundError), left(folder, name, LARGEST_FILE):
        return folder / name
    return None


def _columns_read(folder: Path, name: str) -> Callable[[str, Schema], Columns]:
    """How the child left its columns: as arrays, or as lists of rows in JSON where these are of any length."""
    try:
        file = left(folder, f"{name}.json", LARGEST_ROWS)
    except FileNotFoundError:
        with left(folder, f"{name}.npz", LARGEST_FILE) as file:
            arrays = _arrays(file)
        return lambda side, schema: _columns(arrays, side, schema)
    with file:
        said = msgspec.convert(json.loads(file.read()), dict[str, list[dict[str, Any]]])
    return lambda side, schema: _of_rows(said[side], schema)


def _arrays(file: BinaryIO) -> dict[str, Any]:
    """The arrays of an .npz file. Raises ValueError where they would be larger than any file may be."""
    with zipfile.ZipFile(file) as archive:
        size = sum(each.file_size for each in archive.infolist())
    if size > LARGEST_FILE:
        raise ValueError(f"arrays of {size} bytes: expected at most {LARGEST_FILE}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _of_rows(rows: Sequence[Mapping[str, Any]], schema: Schema) -> Columns:
    columns = {
        field.name: column_from_values(field, [row.get(field.name) for row in rows], json=False) for field in schema
    }
    return Columns.of(schema, columns)


def _columns(arrays: Mapping[str, Any], side: str, schema: Schema) -> Columns:
    """Arrays of a file in the types of a schema: shapes `(n, 1)` and `(n,)` are one, floats may be narrowed."""
    made: dict[str, Any] = {}
    for at, field in enumerate(schema):
        array = arrays[f"{side}{at}"]
        tensor = field.type.tensor_dtype_and_shape()
        if tensor is None:
            made[field.name] = _objects(array)
            continue
        dtype, shape = tensor
        if array.ndim != 1 + len(shape):
            array = array.reshape(len(array), *[-1 if size is None else size for size in shape])
        with np.errstate(all="ignore"):
            made[field.name] = array.astype(dtype)
    return Columns.of(schema, made)


def _objects(array: Any) -> Any:
    column = np.empty(len(array), dtype=object)
    column[:] = array.tolist()
    return column


def _plain(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{1,20}", text):
        raise ValueError(f"the attempt {text[:20]!r}")
    return text


def _line(text: str) -> str:
    return " ".join(text.split())[:400]
