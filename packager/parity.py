"""Parity: the packaged model is asked the golden rows in a child process and must answer as expected.

Where the user gave the original's answers, those are expected. Where not, the model must at least agree with itself:
all rows at once against one by one. An ONNX model has nothing to fall back to, so a miss is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bundle.golden import Comparison, GoldenRows, Tolerance, compare
from columns.columns import Columns
from edgepack.errors import BadInput
from packager.optimize.report import table as optimize_table
from packager.worker_environments import worker_environments
from runtimes.protocol import Misfits
from runtimes.trial import predict_in_child

if TYPE_CHECKING:
    from packager.artifact import ModelArtifact

EXPECTED = "compared with the expected answers of the golden rows"
REPEATED = "no expected answers were given: compared with the answers of the first run, which are kept with the rows"
ORIGINAL = "compared with the original's answers to rows made for it"
NOT_COMPARABLE = (
    "the original differs from itself, so its rows travel without answers: the packaged model only has to run"
)
UNASKED = "what answers for a step was not there: nothing was compared"
CONSISTENT = "no expected answers were given: all rows at once agree with one by one"


@dataclass(frozen=True)
class Answers:
    """What the packaged model answered: all rows at once, and one by one."""

    together: Columns
    alone: Columns


def ask(folder: Path, inputs: Columns, timeout_s: float, cache: Path | None = None) -> Answers:
    """Run rows through an unpacked bundle, twice, in one child. Raises BadInput, RuntimeFailed or Unreachable as
    the child says; a container that is there and does not fit is the project's matter, BadInput.

    `cache` keeps what python steps import for the next run.
    """
    try:
        with nullcontext() if cache is None else worker_environments(cache) as environments:
            both = predict_in_child(folder, inputs, timeout_s, twice=True, environments=environments)
    except Misfits as error:
        raise BadInput(str(error)) from error
    return Answers(both.slice(0, inputs.rows), both.slice(inputs.rows, 2 * inputs.rows))


def prove(
    golden: GoldenRows, answers: Answers, tolerance: Tolerance, origin: str = EXPECTED, path: Path | None = None
) -> dict[str, Any]:
    """Compare and return the parity report; `origin` says who gave the expected answers, `path` is the user's file of
    them. Raises BadInput that names the worst row, field and values, and that file.
    """
    if golden.outputs is None:
        found = compare(answers.together, answers.alone, tolerance)
        if not found.passed:
            raise BadInput(
                "the model differs from itself between all rows at once and one by one, so it is not "
                f"comparable: {found.reason}"
            )
        return report(found, CONSISTENT, tolerance)
    worst = max((compare(golden.outputs, each, tolerance) for each in (answers.together, answers.alone)), key=_badness)
    if not worst.passed:
        where = f"; '{path.name}' expects it: correct it there, or remove its fields out.<field>" if path else ""
        raise BadInput(
            "the packaged model does not answer as expected: "
            f"{worst.reason}; largest difference {worst.max_abs:g}{where}"
        )
    return report(worst, origin, tolerance)


def is_comparable(step: ModelArtifact) -> bool:
    """Whether an original answers twice the same; of what has none, nothing else is known."""
    return step.parity is None or bool(step.parity.get("comparable", True))


def unproven(answers: Answers, tolerance: Tolerance) -> dict[str, Any]:
    """The report on a model that answers every row and never twice the same: its difference from itself."""
    return report(compare(answers.together, answers.alone, tolerance), NOT_COMPARABLE, tolerance)


def unasked(tolerance: Tolerance) -> dict[str, Any]:
    """The report on a pipeline whose container, or model of its own, was away: no row was compared."""
    return report(Comparison(0, 0.0, 0.0, 0, None, True), UNASKED, tolerance)


def report(found: Comparison, reason: str, tolerance: Tolerance) -> dict[str, Any]:
    """The parity report as it is stored and printed."""
    return {
        "rows": found.rows,
        "max_abs": found.max_abs,
        "max_rel": found.max_rel,
        "label_flips": found.label_flips,
        "worst_row": found.worst_row,
        "tolerance": tolerance if isinstance(tolerance, float) else dict(tolerance),
        "runtime": "onnx",
        "reason": reason,
    }


def add_steps(report: dict[str, Any], steps: Sequence[ModelArtifact]) -> None:
    """Say what each step runs in, and how those that were converted compared with their originals."""
    report["runtime"] = ", ".join(dict.fromkeys(step.spec.runtime for step in steps))
    proven = {step.source.name: step.parity for step in steps if step.parity is not None}
    if proven:
        report["steps"] = proven


def encode(parity: dict[str, Any]) -> bytes:
    """The report as the referrer's blob: JSON, keys in the order above."""
    return msgspec.json.encode(parity)


def table(parity: dict[str, Any]) -> list[str]:
    """The report for people, a line each."""
    worst = "" if parity["worst_row"] is None else f" (row {parity['worst_row']})"
    allowed = parity["tolerance"]
    tolerances = (
        [f"{name} {each:g}" for name, each in allowed.items()] if isinstance(allowed, dict) else [f"{allowed:g}"]
    )
    lines = [
        f"rows compared        {parity['rows']}",
        f"largest difference   {parity['max_abs']:.3g} absolute, {parity['max_rel']:.3g} relative{worst}",
        f"label flips          {parity['label_flips']}",
        f"tolerance            {', '.join(tolerances)}",
        f"how                  {parity['reason']}",
    ]
    for name, step in parity.get("steps", {}).items():
        lines += _step_table(name, step)
    return [*lines, *optimize_table(parity)]


def _step_table(name: str, step: Mapping[str, Any]) -> list[str]:
    """What became of a converted step: its runtime, and each attempt with its reason."""
    lines = [f"step '{name}': {step['original']} runs in {step['runtime']} ({step['environment']})"]
    for attempt in step["trail"]:
        compared = f", {attempt['rows']} rows, {attempt['max_rel']:.2g} relative" if "rows" in attempt else ""
        flips = f", {attempt['label_flips']} label flips" if attempt.get("label_flips") else ""
        told = "equal" if attempt["passed"] else f"refused: {attempt['reason']}"
        lines.append(f"  {attempt['strategy']:19}{told}{compared}{flips}")
    return lines


def _badness(found: Comparison) -> tuple[int, float]:
    return found.label_flips, found.max_rel
