"""What a training program may call: `prepare` writes a trained estimator as a project, ready for `edgepack build`.

No room of the house is imported here, and nothing of edgepack's but its errors: what needs more is asked of the
program `edgepack` in a child process. The estimator's own libraries are those of the caller.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack._golden import evenly, write_rows
from edgepack._program import asked
from edgepack.errors import BadInput

MODEL, GOLDEN, TOML = "model.pkl", "golden.json", "edgepack.toml"
FRAMEWORKS = ("sklearn", "xgboost", "lightgbm")

_MATRIX, _TEXT = "inputs", "text"
_METHODS = {"predictions": "predict", "probabilities": "predict_proba"}
_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_NO_ROWS = "x_sample has no rows: give some that the estimator can predict"


@dataclass(frozen=True)
class Prepared:
    """A written project: its folder, what the pipeline is called, its fields, and how many golden rows it has."""

    path: Path
    pipeline: str
    framework: str
    input: Mapping[str, str]
    output: Mapping[str, str]
    rows: int


def prepare(
    estimator: Any,
    x_sample: Any,
    y_sample: Any = None,
    *,
    path: str | Path,
    name: str | None = None,
    framework: str | None = None,
    wheels: str | Path | None = None,
) -> Prepared:
    """Write a fitted estimator as a project at `path`: model, fields, and golden rows with its own answers.

    `x_sample` are rows it predicts: a DataFrame (one field a column), an array of rows (one field `inputs`), or texts.
    `y_sample`, where given, are as many known answers: of the kind that the estimator gives. `framework` is told by
    the estimator's class. `wheels` is a folder of wheels that edgepack takes what it needs from before the index.
    Nothing is there at `path` until all is written. Raises BadInput for what does not fit.
    """
    target = Path(path).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(f"'{target}' is there already: choose a new folder, or delete it first")
    framework = framework or _framework_of(estimator)
    _check_categories(framework, x_sample)
    fields, columns = _fields_of(x_sample)
    answers = _answers_of(estimator, x_sample)
    _check_known(answers, y_sample, len(next(iter(columns.values()))))
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        (stage / MODEL).write_bytes(_pickled(estimator))
        rows = _rows_of(columns, answers)
        write_rows(stage / GOLDEN, rows)
        said = _init(stage, name or target.name, framework, fields, wheels)
        write_rows(stage / GOLDEN, _of_fields(rows, said["output"]))
        stage.chmod(0o755)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Prepared(target, said["pipeline"], said["framework"], said["input"], said["output"], len(rows))


def _framework_of(estimator: Any) -> str:
    """The library that the estimator's class comes from."""
    top = type(estimator).__module__.partition(".")[0]
    if top not in FRAMEWORKS:
        raise BadInput(
            f"estimator is a {type(estimator).__module__}.{type(estimator).__qualname__}: expected one of "
            f"{', '.join(FRAMEWORKS)}; package anything else as framework 'custom'"
        )
    return top


def _fields_of(sample: Any) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Fields with their types, and the sample's rows by field."""
    if hasattr(sample, "columns") and hasattr(sample, "dtypes"):
        columns = {str(name): sample[name] for name in sample.columns}
        if len(columns) != len(sample.columns):
            raise BadInput("x_sample has two columns of one name: rename one")
        if not columns or not len(sample):
            raise BadInput(_NO_ROWS)
        return (
            {name: _type_of(name, column.to_numpy()) for name, column in columns.items()},
            {name: column.to_numpy().tolist() for name, column in columns.items()},
        )
    array = _array(sample)
    if array.ndim == 1:
        return {_TEXT: _type_of(_TEXT, array)}, {_TEXT: array.tolist()}
    if array.ndim != 2 or not array.shape[1]:
        raise BadInput(f"x_sample has shape {array.shape}: expected rows of values, as predict() takes them")
    return {_MATRIX: f"list<{_type_of(_MATRIX, array)}>[{array.shape[1]}]"}, {_MATRIX: array.tolist()}


def _check_categories(framework: str, sample: Any) -> None:
    """XGBoost and LightGBM know a pandas category by its code alone, which no request carries."""
    if framework == "sklearn" or not hasattr(sample, "dtypes") or not hasattr(sample, "columns"):
        return
    names = [str(name) for name in sample.columns if str(sample[name].dtype) == "category"]
    if names:
        raise BadInput(
            f"column '{names[0]}' of x_sample is a pandas category: a request has its text, and {framework} needs the "
            "code; train with an OrdinalEncoder in a scikit-learn pipeline, or package it as framework 'custom'",
            field=names[0],
        )


def _array(sample: Any) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise BadInput("preparing an estimator needs numpy: pip install numpy") from error
    dense = sample.toarray() if hasattr(sample, "toarray") else sample
    array = np.asarray(dense)
    if array.ndim == 0 or not len(array):
        raise BadInput(_NO_ROWS)
    return array


def _type_of(name: str, array: Any) -> str:
    """The type of a column's values. Categories and objects are text."""
    kind = str(array.dtype)
    if _NUMBERS.fullmatch(kind):
        return kind
    if array.dtype.kind in "OUS" and all(isinstance(value, str) for value in array.ravel().tolist()):
        return "string"
    raise BadInput(
        f"field '{name}' of x_sample has values of type {kind}: expected numbers, truth values or text", field=name
    )


def _answers_of(estimator: Any, sample: Any) -> dict[str, list[Any]]:
    """What the estimator itself says; without predict() there is nothing to keep, packaging asks it anew."""
    found = {}
    for field, method in _METHODS.items():
        ask = getattr(estimator, method, None)
        if ask is not None and not (type(estimator).__module__.startswith("xgboost.core")):
            answer = _asked(ask, sample)
            found[field] = (answer.to_numpy() if hasattr(answer, "to_numpy") else answer).tolist()
    return found


def _asked(ask: Callable[[Any], Any], sample: Any) -> Any:
    """One answer of the estimator. Raises BadInput with what it raises itself: not fitted, or other columns."""
    try:
        return ask(sample)
    except Exception as error:
        raise BadInput(
            f"the estimator does not answer x_sample: {type(error).__name__}: {error}; give rows as it was fitted with"
        ) from error


def _check_known(answers: Mapping[str, list[Any]], known: Any, rows: int) -> None:
    """Known answers are as many as the rows, and text where the estimator gives text."""
    if known is None:
        return
    values = known.tolist() if hasattr(known, "tolist") else list(known)
    if len(values) != rows:
        raise BadInput(f"y_sample has {len(values)} values, x_sample has {rows} rows: give as many")
    given = answers.get("predictions")
    if given and values and isinstance(given[0], str) != isinstance(values[0], str):
        raise BadInput(
            f"the estimator answers {given[0]!r}, y_sample has {values[0]!r}: is it the estimator of these rows?"
        )


def _pickled(estimator: Any) -> bytes:
    try:
        return pickle.dumps(estimator, protocol=4)
    except Exception as error:  # whatever a user's class raises when it is pickled
        raise BadInput(f"the estimator cannot be pickled: {error}; package it as framework 'custom'") from error


def _rows_of(columns: Mapping[str, list[Any]], answers: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Golden rows: those that JSON can hold, evenly over the sample."""
    count = len(next(iter(columns.values())))
    rows = [
        {
            **{f"in.{name}": values[row] for name, values in columns.items()},
            **{f"out.{name}": values[row] for name, values in answers.items()},
        }
        for row in evenly(count)
    ]
    finite = [row for row in rows if all(_is_finite(value) for value in row.values())]
    if not finite:
        raise BadInput("every row of x_sample or its answer has a value that is not finite: give some that are")
    return finite


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _of_fields(rows: Sequence[Mapping[str, Any]], outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows with the answers of those fields that the project has; all of them, or none."""
    wanted = {f"out.{name}" for name in outputs}
    complete = wanted <= set(rows[0])
    return [
        {name: value for name, value in row.items() if name.startswith("in.") or (complete and name in wanted)}
        for row in rows
    ]


def _init(
    stage: Path, name: str, framework: str, fields: Mapping[str, str], wheels: str | Path | None
) -> dict[str, Any]:
    """Have `edgepack init` write the project's file; returns what it says."""
    legal = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-") or "model"
    arguments = ["init", str(stage / MODEL), "--framework", framework, "--name", legal, "--golden", GOLDEN, "--json"]
    arguments += ["--wheels", str(wheels)] if wheels else []
    arguments += [part for field, type_ in fields.items() for part in ("--input", f"{field}={type_}")]
    found: dict[str, Any] = json.loads(asked(*arguments))
    return found
