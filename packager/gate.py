"""The gate: a converted model answers the same rows as the original, or it does not pass.

Each attempt is asked in a child, all rows at once and one by one, and both are compared with the original's answers:
labels equal, scores within the tolerance. The original's two runs are compared first; one that differs from itself
proves nothing. Every attempt leaves a line in the trail, passed or not. One that did not answer in time is passed over,
and says nothing of the model: the verdict holds for this build alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from arch.target import host_target
from bundle.bundle import Bundle, pack
from bundle.golden import TOLERANCE, Comparison, Tolerance, compare
from bundle.pipeline import PipelineSpec, StepSpec
from bundle.store import unpack
from columns.records import encode_records
from edgepack.errors import BadInput, RuntimeFailed
from packager.conversion import NATIVE, Attempt
from packager.parity import Answers, ask
from runtimes.trial import Unfinished

# the reason travels in the bundle, whose bytes may not depend on where this machine keeps its temporary files
_FOLDER = re.compile(r"/\S*/(?=[0-9a-f]{64}/)[0-9a-f]{64}/")
_LAST_WORDS = ": …"  # behind it stands what a child said last, paths of this machine perhaps
_LARGEST_SHOWN = 4096  # bytes of the worst row that the report shows: no pictures
CLEARLY = 0.1  # of the tolerance: how much of it an attempt may use up while a wider one is left to try
NOT_COMPARABLE = "the original differs from itself on a second run, so no conversion can be proven"


@dataclass(frozen=True)
class Verdict:
    """Which attempt is taken, how it compared, and what became of the others; `lasts` is False where one before it was
    passed over because it did not answer in time.
    """

    attempt: Attempt
    comparison: Comparison
    trail: tuple[Mapping[str, Any], ...]
    lasts: bool = True

    @property
    def reason(self) -> str | None:
        """Why not native, in one line; None where it is."""
        if self.attempt.strategy in NATIVE:
            return None
        told = dict.fromkeys(f"{each['strategy']}: {each['reason']}" for each in self.trail if not each["passed"])
        return "; ".join(told)


def choose(attempts: Sequence[Attempt], tolerance: Tolerance, timeout_s: float) -> Verdict:
    """Take the first native attempt that passes clearly, else the first that passes, else python.

    The rows are a sample: where differences come near to the tolerance, other rows may go beyond it.
    """
    trail: list[Mapping[str, Any]] = []
    near: tuple[Attempt, Comparison] | None = None
    lasts = True
    for attempt in attempts:
        if attempt.strategy not in NATIVE:
            chosen = near or (attempt, _itself(attempt, tolerance))
            return Verdict(*chosen, tuple(trail), lasts)
        try:
            compared, reason = _judged(attempt, tolerance, timeout_s)
        except Unfinished as error:
            compared, reason, lasts = None, _does_not_run(error), False
        trail.append(_entry(attempt, compared, reason))
        if compared is not None and reason is None:
            if _is_clear(compared, tolerance):
                return Verdict(attempt, compared, tuple(trail), lasts)
            near = near or (attempt, compared)
    if near is not None:
        return Verdict(*near, tuple(trail), lasts)
    raise RuntimeFailed("no attempt was made to run the model")


def _is_clear(found: Comparison, tolerance: Tolerance) -> bool:
    strictest = min([TOLERANCE, *tolerance.values()]) if isinstance(tolerance, Mapping) else tolerance
    return found.max_rel <= strictest * CLEARLY


def _itself(attempt: Attempt, tolerance: Tolerance) -> Comparison:
    return compare(attempt.answers, attempt.again, tolerance)


def _judged(attempt: Attempt, tolerance: Tolerance, timeout_s: float) -> tuple[Comparison | None, str | None]:
    """How an attempt compares with an original that answers twice the same, and why it does not pass."""
    itself = _itself(attempt, tolerance)
    if not itself.passed:
        return itself, f"{NOT_COMPARABLE} ({itself.reason})"
    if attempt.model is None:
        return None, attempt.reason or "not converted"
    return _compared(attempt, tolerance, timeout_s)


def _compared(attempt: Attempt, tolerance: Tolerance, timeout_s: float) -> tuple[Comparison | None, str | None]:
    """How the converted model compares, and why it does not pass. Raises Unfinished where it is not known in time."""
    try:
        answers = _answers(attempt, timeout_s)
    except Unfinished:
        raise
    except (BadInput, RuntimeFailed) as error:
        return None, _does_not_run(error)
    both = [compare(attempt.answers, each, tolerance) for each in (answers.together, answers.alone)]
    worst = max(both, key=lambda each: (not each.passed, each.label_flips, each.max_rel))
    return worst, None if worst.passed else f"it answers differently: {worst.reason}"


def _does_not_run(error: Exception) -> str:
    return f"it does not run: {_FOLDER.sub('', str(error)).partition(_LAST_WORDS)[0]}"


def _answers(attempt: Attempt, timeout_s: float) -> Answers:
    assert attempt.model is not None  # noqa: S101 - the caller has looked
    place = "model.onnx" if attempt.task is None else "model"  # a task has a folder
    files = {f"{place}/{name}" if attempt.task else place: path for name, path in attempt.files.items()}
    fields = attempt.input.to_dict(), attempt.output.to_dict()
    spec = PipelineSpec("gate", [StepSpec("model", place, "onnx", "onnx", *fields, task=attempt.task)])
    index = pack(spec, files, b"[]\n", [host_target()])
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        return ask(unpack(Bundle.from_image(index.images[0], index.digest), Path(work)), attempt.rows, timeout_s)


def _entry(attempt: Attempt, found: Comparison | None, reason: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"strategy": attempt.strategy, "passed": reason is None, "reason": reason}
    if found is not None:
        entry.update(figures(found))
        if found.worst_row is not None:
            row = encode_records(attempt.rows.slice(found.worst_row, found.worst_row + 1), ".")
            if len(row) <= _LARGEST_SHOWN:
                entry["worst_input"] = orjson.loads(row)[0]
    return entry


def figures(found: Comparison) -> dict[str, Any]:
    """What a comparison showed, for a report."""
    return {
        "rows": found.rows,
        "max_abs": found.max_abs,
        "max_rel": found.max_rel,
        "label_flips": found.label_flips,
        "worst_row": found.worst_row,
    }
