"""Runs the child that quantizes a model, and reads what it left; nothing of it is trusted to be well formed.

What was made is kept in the cache under everything it depends on: a second build of the same model quantizes nothing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from bundle.task import NETWORK
from columns.columns import Columns
from edgepack.errors import BadInput, RuntimeFailed
from packager.artifact import ModelArtifact, file_digest, folder_digest
from packager.confined import LARGEST_FILE, left, result_of, run_confined
from packager.environments import Environment
from packager.frameworks import onnx
from packager.frameworks.tensor_rows import scalar_of
from packager.kept import OUTCOME, kept

DEADLINE_S = 300.0
MOST_ROWS = 256  # that a model is calibrated with
MOST_VALUES = 50_000_000  # in all of them together
LARGEST = (2 << 30) - 1  # bytes of a model with its weights
_MODEL, _MADE = "model.onnx", "quantized.onnx"  # as it is kept, as the child leaves it
_CODE = Path(__file__).parents[1] / "convert"
_MODULE = "convert.quantizing.job"

Quantize = Literal["dynamic", "static"]


class _Result(msgspec.Struct, frozen=True):
    """`result.json`, and what is kept of it."""

    refused: str | None = None
    operators: dict[str, int] = {}
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Quantized:
    """A quantized model's file: how many operators of which kinds became integers, and what made it."""

    file: Path
    operators: Mapping[str, int]
    versions: Mapping[str, str]


def quantized(
    model: ModelArtifact, quantize: Quantize, rows: Columns, environment: Environment, cache: Path
) -> Quantized:
    """Quantize a native model; `rows` are its own inputs, asked by `static` alone.

    Raises BadInput with the reason where it cannot be quantized; RuntimeFailed when the child crashed, hung or left
    another model than it was given.
    """
    name, file = model.source.model.name, network_of(model)[1]
    size = sum(each.stat().st_size for each in model.files.values())
    if size > LARGEST:
        raise BadInput(f"model '{name}' has {size} bytes: only models below 2 GiB are quantized, remove optimize")
    if model.task is not None and quantize == "static":
        raise BadInput(
            f"model '{name}' takes what its tokenizer or image processor makes of rows, which 'static' cannot be "
            'calibrated with: use quantize = "dynamic"'
        )
    given = calibration_rows(rows) if quantize == "static" else None
    key = _key(model, quantize, given, environment)

    def make(work: Path) -> Path:
        return _made(model, file, quantize, given, environment, work)

    folder = kept(cache, key, make, f"what '{name}' became")
    found = msgspec.json.decode((folder / OUTCOME).read_bytes(), type=_Result)
    return Quantized(folder / _MODEL, found.operators, found.versions)


def with_network(model: ModelArtifact, made: Quantized, quantize: Quantize) -> ModelArtifact:
    """The model with its quantized network in place of its own; weights that lay outside are inside now."""
    path, _ = network_of(model)
    if model.task is None:
        digest: str = file_digest(made.file)
        return replace(model, files={path: made.file}, digest=digest, quantized=quantize)
    files = {**model.files, path: made.file}
    inside = {each.removeprefix(f"{model.model}/"): file for each, file in files.items()}
    return replace(model, files=files, digest=folder_digest(inside), quantized=quantize)


def network_of(model: ModelArtifact) -> tuple[str, Path]:
    """The network of a native model: its path in the bundle, its file."""
    path = model.model if model.task is None else f"{model.model}/{NETWORK}"
    return path, model.files[path]


def calibration_rows(rows: Columns) -> Columns:
    """The rows that a model is calibrated with: all of them, or as many as are bearable, spread over all."""
    width = sum(np.asarray(array).nbytes for array in rows.arrays.values()) // max(1, rows.rows * 4)
    count = min(rows.rows, MOST_ROWS, max(1, MOST_VALUES // max(1, width)))
    at = np.unique(np.linspace(0, rows.rows - 1, count).astype(int))
    return Columns.of(rows.schema, {name: np.asarray(array)[at] for name, array in rows.arrays.items()})


def _made(
    model: ModelArtifact, file: Path, quantize: Quantize, rows: Columns | None, environment: Environment, work: Path
) -> Path:
    """Run the child; the folder of what it made, checked."""
    folder, stage = work / "child", work / "outcome"
    folder.mkdir()
    if len(model.files) > 1 and model.task is None:  # weights beside the model: the child sees one folder alone
        file = _gathered(model, folder)
    job: dict[str, Any] = {"model": str(file.resolve()), "folder": str(folder.resolve()), "quantize": quantize}
    if rows is not None:
        np.savez(folder / "rows.npz", **_tensors(rows))
        names = None if model.source.tensor_fields else list(rows.schema.names)
        job |= {"rows": str((folder / "rows.npz").resolve()), "names": names}
    before = onnx.inspect(file)  # it may lie in the child's folder, where it is the child's from now on
    run_confined(_MODULE, job, file, environment, folder, DEADLINE_S, "quantizing")
    result = _read(folder, model)
    stage.mkdir()
    _take(folder, stage / _MODEL, before)
    (stage / OUTCOME).write_bytes(msgspec.json.encode(result))
    return stage


def _gathered(model: ModelArtifact, folder: Path) -> Path:
    """Copies of a model and the files beside it, in the child's own folder; the model's."""
    place = f"{model.model.rpartition('/')[0]}/"
    for path, file in model.files.items():
        copy = folder / "given" / path.removeprefix(place)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return folder / "given" / model.model.removeprefix(place)


def _tensors(rows: Columns) -> dict[str, Any]:
    """Each row of each field as an array of its own: rows may be of different lengths."""
    made: dict[str, Any] = {}
    for at, field in enumerate(rows.schema):
        scalar = scalar_of(field.type)
        dtype = np.dtype(str) if scalar == "string" else np.dtype(scalar)
        column = np.asarray(rows.arrays[field.name])
        made |= {f"in{at}-{row}": np.array(_plain(column[row]), dtype=dtype) for row in range(rows.rows)}
    return made


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value


def _read(folder: Path, model: ModelArtifact) -> _Result:
    name = model.source.model.name
    result = result_of(folder, _Result, f"quantizing '{name}'")
    if result.refused is not None:
        raise BadInput(f"model '{name}' cannot be quantized: {' '.join(result.refused.split())[:500]}")
    return result


def _take(folder: Path, final: Path, before: onnx.Signature) -> None:
    """Move the child's model out of its folder. Raises RuntimeFailed where it is none that this version runs, or has
    other inputs or outputs than before.
    """
    name = before.path.name
    try:
        with left(folder, _MADE, LARGEST_FILE):
            (folder / _MADE).rename(final)
        after = onnx.inspect(final)
        onnx.check_version(after)
    except (OSError, BadInput) as error:
        raise RuntimeFailed(f"quantizing '{name}' left no model that reads: {error}") from error
    for ours, theirs in ((before.inputs, after.inputs), (before.outputs, after.outputs)):
        if [(each.name, each.element) for each in ours] != [(each.name, each.element) for each in theirs]:
            raise RuntimeFailed(f"quantizing '{name}' left a model with other inputs or outputs")
    if after.external:
        raise RuntimeFailed(f"quantizing '{name}' left a model with weights outside")


def _key(model: ModelArtifact, quantize: Quantize, rows: Columns | None, environment: Environment) -> str:
    asked = {
        "files": {path: str(file_digest(file)) for path, file in sorted(model.files.items())},
        "quantize": quantize,
        "tensor_fields": model.source.tensor_fields,
        "environment": environment.kept.key,
        "code": _code_digest(),
        "rows": None if rows is None else _rows_digest(rows),
    }
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]


def _rows_digest(rows: Columns) -> str:
    digest = hashlib.sha256(msgspec.json.encode(rows.schema.to_dict()))
    for name, array in sorted(_tensors(rows).items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Our quantizer as it is: a changed one quantizes anew."""
    digest = hashlib.sha256()
    shared = (_CODE / name for name in ("fields.py", "jobs.py"))
    for path in (*sorted((_CODE / "quantizing").glob("*.py")), *shared):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
