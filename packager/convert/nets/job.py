"""The child's program for networks: load, make rows, ask twice, convert. Files as those of `convert.job`."""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

import numpy as np

from ..fields import Unsuited, line
from ..jobs import carry_out
from .other_rows import check_alone, refusal
from .rows import given_rows, made_rows
from .tensors import TensorField, answered_fields, field

_FORMS = {"torchscript": "torchscript", "keras": "keras_net", "savedmodel": "savedmodel"}


def main(job_text: str) -> None:
    """Do one job."""
    carry_out(job_text, _run)


def _run(job: dict[str, Any], result: dict[str, Any]) -> None:
    module = import_module(f".{_FORMS[job['form']]}", __package__)
    net = module.Net(job["model"])
    inputs = net.fields(None if job["input"] is None else [field(each) for each in job["input"]])
    declared = None if job["output"] is None else [field(each) for each in job["output"]]
    rows = _rows(job, inputs, net)
    count = len(next(iter(rows.values())))
    answers, again = net.ask(rows), net.ask(rows)
    alone = _alone(net, inputs, rows)
    outputs = answered_fields(declared, net.outputs, answers, alone, count)
    check_alone(net.ask, rows, answers, again)
    said = {
        "input": [(each.name, each.text) for each in inputs],
        "output": [(each.name, each.text) for each in outputs],
        "methods": {},
    }
    attempts = []
    for attempt in job["attempts"]:
        strategy = attempt["strategy"]
        _save(job, strategy, rows, answers, again)
        reason = None if strategy == "python" else _converted(job, net, strategy, rows, inputs, outputs)
        attempts.append({"strategy": strategy, **said, "reason": reason})
    result.update(model=net.model, versions=module.versions(), parameters={}, layout="tensors", attempts=attempts)


def _alone(net: Any, inputs: list[TensorField], rows: dict[str, Any]) -> list[Any]:
    """The answers to one row, with the axes of unsaid length one shorter where the model takes that: what changes
    with them is an axis of unsaid length too.
    """
    one = {name: array[:1] for name, array in rows.items()}
    shorter = {each.name: one[each.name][_shorter(each)] for each in inputs}
    try:
        return list(net.ask(shorter))
    except Exception:  # fewer are too few for it: its lengths stay as they were seen
        return list(net.ask(one))


def _shorter(each: TensorField) -> tuple[slice, ...]:
    return (slice(None), *[slice(0, -1) if size < 0 else slice(None) for size in each.shape])


def _rows(job: dict[str, Any], inputs: list[TensorField], net: Any) -> dict[str, Any]:
    if job.get("rows") is None:
        return made_rows(inputs, net.ask)
    with open(job["rows"]) as file:
        return given_rows(json.load(file), inputs)


def _converted(
    job: dict[str, Any],
    net: Any,
    strategy: str,
    rows: dict[str, Any],
    inputs: list[TensorField],
    outputs: list[TensorField],
) -> str | None:
    """Write the model; why not, where it is not."""
    wide = [each.name for each in inputs if each.scalar in net.wide]
    if wide:
        return f"field '{wide[0]}' is float64: its columns are answered by {net.kind} itself"
    if {each.name for each in inputs} & {each.name for each in outputs}:
        return "a field is input and output under one name"
    path = os.path.join(job["folder"], f"{strategy}.onnx")
    try:
        net.export(path, rows, inputs, outputs)
    except Unsuited as error:
        return str(error)
    except Exception as error:  # exporters raise anything; the reason is the user's
        return f"the exporter refuses it: {type(error).__name__}: {line(error)}"
    return refusal(path, net.ask, rows, inputs)


def _save(job: dict[str, Any], name: str, rows: dict[str, Any], answers: list[Any], again: list[Any]) -> None:
    arrays = {}
    for side, columns in (("in", list(rows.values())), ("out", answers), ("again", again)):
        for at, array in enumerate(columns):
            arrays[f"{side}{at}"] = array
    np.savez(os.path.join(job["folder"], name + ".npz"), **arrays)
