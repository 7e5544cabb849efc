"""The child's program: load an artefact, say what it is, make rows, ask it, convert it. All results are files.

`result.json` says what was found. For each attempt there are `<name>.npz` with the rows and the original's answers
(`in0…`, `out0…`, and `again0…` of a second run), and `<name>.onnx` where the conversion ended well. Whether a converted
model is right is not decided here.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from .decisive import answered, decisive_rows
from .fields import Field, Unsuited
from .loading import load
from .original import METHODS, Original

_LIBRARIES = ("scikit-learn", "xgboost-cpu", "lightgbm", "skl2onnx", "onnxmltools", "onnx", "numpy", "pandas", "skops")


def main(job_text: str) -> None:
    """Do one job; a refusal is part of the result, a fault of ours ends the process."""
    warnings.simplefilter("ignore")
    job = json.loads(job_text)
    result: Dict[str, Any] = {}
    try:
        _run(job, result)
    except Unsuited as error:
        result["refused"] = str(error)
    except MemoryError:
        result["refused"] = "it needs more memory than a conversion is given"
    with open(os.path.join(job["folder"], "result.json"), "w") as file:
        json.dump(result, file)


def _run(job: Dict[str, Any], result: Dict[str, Any]) -> None:
    model = _load(job)
    original = Original(model, job)
    result.update(
        model="%s.%s" % (type(model).__module__, type(model).__name__),
        versions=_versions(),
        parameters=_parameters(model),
        layout=original.layout,
        names=original.names,
        attempts=[],
    )
    refused = None
    for attempt in job["attempts"]:
        try:
            result["attempts"].append(_attempt(job, original, attempt))
        except Unsuited as error:
            refused = refused or error
    if not any(each["strategy"] == "python" for each in result["attempts"]):
        raise refused or Unsuited("it was asked for no runtime")


def _load(job: Dict[str, Any]) -> Any:
    try:
        model = load(job["model"], job["form"])
    except (Unsuited, MemoryError):
        raise
    except Exception as error:
        raise Unsuited("it does not load here: %s: %s" % (type(error).__name__, _line(error))) from error
    if _is_ranker(model):
        raise Unsuited(
            "it is a ranker, whose scores mean something only within one query: package it as framework 'custom' "
            "(BYOP) with code that ranks"
        )
    if not any(hasattr(model, name) for name in METHODS.values()):
        raise Unsuited("a %s neither predicts nor transforms: save a fitted estimator" % type(model).__name__)
    return model


def _is_ranker(model: Any) -> bool:
    if type(model).__name__ == "Booster" and hasattr(model, "save_config"):
        name = json.loads(model.save_config())["learner"]["objective"]["name"]
        return str(name).startswith("rank:")
    return type(model).__module__.startswith("xgboost") and type(model).__name__.endswith("Ranker")


def _attempt(job: Dict[str, Any], original: Original, attempt: Dict[str, Any]) -> Dict[str, Any]:
    """Rows, answers and, for a native attempt, the converted model."""
    strategy = attempt["strategy"]
    scalar = "float32" if strategy == "float32" else "float64"
    fields = original.in_floats(scalar)
    rows = _rows(job, original, fields, scalar)
    answers, again = original.ask(fields, rows), original.ask(fields, rows)
    outputs = original.outputs(answers, scalar)
    _save(job, strategy, rows, answers, again)
    found: Dict[str, Any] = {
        "strategy": strategy,
        "input": [(field.name, field.text) for field in fields],
        "output": [(field.name, field.text) for field in outputs],
        "methods": original.methods(),
        "reason": None,
    }
    if strategy != "python":
        found["reason"] = _convert(job, original, fields, outputs, strategy)
    return found


def _rows(job: Dict[str, Any], original: Original, fields: List[Field], scalar: str) -> Dict[str, Any]:
    """The user's rows where they were given, then those that decide."""
    given = _given(job, fields)
    made: Optional[Dict[str, Any]] = None
    try:
        original.is_widened = False
        made = decisive_rows(original.model, fields, scalar, original.layout)
        made = _answered(original, fields, made, scalar)
    except Unsuited:
        try:
            original.is_widened = scalar == "float32"
            made = {name: _tame(array) for name, array in (made or {}).items()}
            made = answered(lambda rows: original.ask(fields, rows), made) if made else None
        except Unsuited:
            made, original.is_widened = None, False
        if made is None and given is None:
            raise
    if given is None:
        assert made is not None  # raised above otherwise
        return made
    if made is None:
        return given
    return {name: np.concatenate([given[name], made[name].astype(given[name].dtype)]) for name in given}


def _answered(original: Original, fields: List[Field], made: Dict[str, Any], scalar: str) -> Dict[str, Any]:
    """Rows that the original answers, as they are, else widened to 64 bits."""
    try:
        return answered(lambda rows: original.ask(fields, rows), made)
    except Unsuited:
        if scalar != "float32":
            raise
        original.is_widened = True
        return answered(lambda rows: original.ask(fields, rows), made)


def _tame(array: Any) -> Any:
    """Numbers that more estimators take: finite, not negative, not large."""
    if array.dtype.kind != "f":
        return array
    return np.abs(np.clip(np.nan_to_num(array), -10, 10))


def _given(job: Dict[str, Any], fields: List[Field]) -> Optional[Dict[str, Any]]:
    """The user's rows as columns of the fields. A null is a missing number."""
    if not job.get("rows"):
        return None
    with open(job["rows"]) as file:
        rows = json.load(file)
    return {field.name: _given_column(rows, field) for field in fields}


def _given_column(rows: List[Dict[str, Any]], field: Field) -> Any:
    for number, row in enumerate(rows):
        if field.name not in row:
            raise Unsuited("golden row %d lacks '%s': it has %s" % (number, field.name, ", ".join(map(str, row))))
    values = [row[field.name] for row in rows]
    try:
        if field.scalar == "string":
            made = np.empty(len(values), dtype=object)
            made[:] = [str(value) for value in values]
            return made
        column = np.array(values, dtype=np.float64 if field.dtype.kind == "f" else field.dtype)
        if column.shape[1:] != (() if field.size is None else (field.size,)):
            raise ValueError("the shape of a row is %s" % (column.shape[1:],))
        return column.astype(field.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unsuited("golden rows, field '%s': expected %s: %s" % (field.name, field.text, _line(error))) from error


def _convert(
    job: Dict[str, Any],
    original: Original,
    fields: List[Field],
    outputs: List[Field],
    strategy: str,
) -> Optional[str]:
    """Write the converted model; returns why there is none."""
    try:
        from .graph import dressed

        model, missing = _graph_of(original, fields, strategy)
        made = dressed(model, original.layout, fields, outputs, _sources(model, original.methods()), missing)
        with open(os.path.join(job["folder"], strategy + ".onnx"), "wb") as file:
            file.write(made.SerializeToString(deterministic=True))
    except Exception as error:  # whatever a converter raises is a reason, not a fault of ours
        if os.environ.get("EDGEPACK_DEBUG"):
            traceback.print_exc()
        return _line(error) if isinstance(error, Unsuited) else "%s: %s" % (type(error).__name__, _line(error))
    return None


def _graph_of(original: Original, fields: List[Field], strategy: str) -> Tuple[Any, Any]:
    width = fields[0].size if original.layout == "matrix" else len(fields)
    if original.library == "xgboost":
        from . import from_xgboost

        _once(strategy)
        return from_xgboost.converted(original.model, width or 1), from_xgboost.missing_value(original.model)
    if original.library == "lightgbm":
        from . import from_lightgbm

        _once(strategy)
        return from_lightgbm.converted(original.model, width or 1), None
    from . import from_sklearn

    return from_sklearn.converted(original.model, original.layout, fields, strategy), None


def _once(strategy: str) -> None:
    if strategy == "double":
        raise Unsuited("its trees compare 32-bit floats: a wider input changes nothing")


def _sources(model: Any, methods: Dict[str, str]) -> Dict[str, str]:
    """Which of the converter's outputs a field is: the answer comes first, probabilities second."""
    names = [value.name for value in model.graph.output]
    found = {}
    for field, method in methods.items():
        at = 1 if method == "predict_proba" else 0
        if at >= len(names):
            raise Unsuited("the converter gives no %s" % field)
        found[field] = names[at]
    return found


def _save(
    job: Dict[str, Any],
    name: str,
    rows: Dict[str, Any],
    answers: Dict[str, Any],
    again: Dict[str, Any],
) -> None:
    arrays = {}
    for side, columns in (("in", rows), ("out", answers), ("again", again)):
        for at, array in enumerate(columns.values()):
            arrays["%s%d" % (side, at)] = array.astype(str) if array.dtype == object else array
    np.savez(os.path.join(job["folder"], name + ".npz"), **arrays)


def _versions() -> Dict[str, str]:
    from importlib import metadata

    found = {"python": "%d.%d.%d" % sys.version_info[:3]}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _parameters(model: Any) -> Dict[str, Any]:
    """Hyper-parameters that are plain values; of the estimator and of those inside it."""
    try:
        found = model.get_params(deep=True)
    except Exception:  # a booster has none of these
        found = dict(getattr(model, "params", None) or {})
        if hasattr(model, "save_config"):
            objective = json.loads(model.save_config())["learner"]["objective"]
            found["objective"] = objective.get("name")
    plain = (str, int, float, bool, type(None))
    named = {key: value for key, value in sorted(found.items()) if isinstance(value, plain)}
    return {key: value for key, value in named.items() if not isinstance(value, float) or np.isfinite(value)}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
