"""The child's program: load an artefact, say what it is, make rows, ask it, convert it. All results are files.

`result.json` says what was found. For each attempt there are `<name>.npz` with the rows and the original's answers
(`in0…`, `out0…`, and `again0…` of a second run), and `<name>.onnx` where the conversion ended well. Whether a converted
model is right is not decided here.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict

import numpy as np

from .asking import narrowed, rows_for
from .converters import convert
from .fields import Unsuited, line
from .jobs import carry_out
from .lineage import parameters, training, versions
from .loading import load
from .original import METHODS, Original


def main(job_text: str) -> None:
    """Do one job."""
    carry_out(job_text, _run)


def _run(job: Dict[str, Any], result: Dict[str, Any]) -> None:
    model = _load(job)
    original = Original(model, job)
    result.update(
        model="%s.%s" % (type(model).__module__, type(model).__name__),
        versions=versions(),
        parameters=parameters(model),
        training=training(model),
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
        raise Unsuited("it does not load here: %s: %s" % (type(error).__name__, line(error))) from error
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
    fields, asked = original.in_floats(scalar), original.in_floats("float64")
    rows = rows_for(job.get("rows"), original, asked, scalar)
    answers, again = original.ask(asked, rows), original.ask(asked, rows)
    outputs = original.outputs(answers, scalar)
    _save(job, strategy, narrowed(rows, fields), answers, again)
    found: Dict[str, Any] = {
        "strategy": strategy,
        "input": [(field.name, field.text) for field in fields],
        "output": [(field.name, field.text) for field in outputs],
        "methods": original.methods(),
        "reason": None,
    }
    if strategy != "python":
        found["reason"] = convert(os.path.join(job["folder"], strategy + ".onnx"), original, fields, outputs, strategy)
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
