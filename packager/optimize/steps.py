"""The models of a pipeline that ask for it become integers: each proven against its original, then all together.

What travels as golden rows stays what the originals answered: a device is held to these, within the bundle's `loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.golden import GoldenRows
from bundle.losses import Loss
from columns.columns import Columns
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import CLASSIC, Environment
from packager.frameworks.proving import checked_environment
from packager.optimize.proof import Losses, loss_on_devices
from packager.optimize.quantization import Quantized, calibration_rows, network_of, quantized, with_network
from packager.optimize.report import fields
from packager.parity import Answers
from packager.project import Optimize, StepSource

MADE_BADLY = (
    "is calibrated with {rows} rows made for it: they say little of real ones; give [golden] rows of real data, or the "
    "ranges of its tensors fit badly"
)


@dataclass(frozen=True)
class Originals:
    """A pipeline that was proven, to be asked again: its steps' models in a row, its golden rows and whose they are.

    `before(count)` is what the first `count` steps make of the golden rows; `alone` asks one model its own inputs,
    `whole` the pipeline with other models in place of its own.
    """

    steps: Sequence[StepSource]
    models: Sequence[ModelArtifact]
    golden: GoldenRows
    are_made: bool
    before: Callable[[int], Columns]
    alone: Callable[[ModelArtifact, Columns], Answers]
    whole: Callable[[Sequence[ModelArtifact], float], Answers]

    @property
    def is_single(self) -> bool:
        """Whether golden rows are answered by one model, so that its answers are theirs."""
        return len(self.models) == 1 and self.golden.outputs is not None

    def by_step(self) -> Iterator[tuple[int, ModelArtifact, bool]]:
        """Each model with the number of its step, and whether it is the one that answers golden rows there."""
        left = iter(self.models)
        for number, step in enumerate(self.steps):
            yield from ((number, next(left), not at) for at, _ in enumerate(step.every_model))


@dataclass(frozen=True)
class Smaller:
    """The models as they travel, what the parity report says of them, and the bundle's `loss`; None where no model that
    answers golden rows was quantized.
    """

    models: list[ModelArtifact]
    report: dict[str, Any]
    loss: float | None = None


def check_steps(models: Sequence[ModelArtifact], checklist: Checklist) -> None:
    """Refuse `optimize` for what does not end in onnxruntime, before anything is made for it."""
    asked = [model for model in models if model.source.optimize is not None]
    refused = next((model for model in asked if model.kind is not None or model.native != "onnx"), None)
    if refused is not None:
        with checklist.check("optimize.quantizes"):
            raise BadInput(_refusal(refused), field="steps.optimize")
    checklist.require()


def optimized(
    originals: Originals, cache: Path, checklist: Checklist, notes: list[str], environment: Environment | None = None
) -> Smaller:
    """Quantize and prove, each model by two named checks; in an environment of its own where none is given.

    Raises BadInput where a check fails.
    """
    asked = [model for model in originals.models if model.source.optimize is not None]
    if not asked:
        return Smaller(list(originals.models), {})
    environment = environment or checked_environment(CLASSIC, asked[0].source, checklist, cache)
    work = _Work(originals, environment, cache, checklist, notes)
    made, entries, tolerances = [], {}, []
    for number, model, answers_golden in originals.by_step():
        optimize = model.source.optimize
        if optimize is None:
            made.append(model)
            continue
        after, entries[model.source.name] = work.one(number, model, optimize)
        made.append(after)
        tolerances += [optimize.tolerance] if answers_golden else []
    if not tolerances:
        return Smaller(made, {"optimize": entries})
    loss = loss_on_devices(tolerances)
    told: dict[str, Any] = {"allowed": loss}
    if not originals.is_single:
        told["fields"] = work.together(made, max(tolerances), loss)
    return Smaller(made, {"optimize": entries, "loss": told}, loss)


@dataclass(frozen=True)
class _Work:
    """What quantizing and proving one model after another needs."""

    originals: Originals
    environment: Environment
    cache: Path
    checklist: Checklist
    notes: list[str]

    def one(self, number: int, model: ModelArtifact, optimize: Optimize) -> tuple[ModelArtifact, dict[str, Any]]:
        """One model of a step quantized and proven: what it became, and its part of the report."""
        rows = self.originals.before(number).select(model.input.names)
        made = self.quantized(model, optimize, rows)
        after = with_network(model, made, optimize.quantize)
        calibration = self.calibration(model, rows) if optimize.quantize == "static" else None
        lost = self.proven(model, after, optimize, rows)
        before_bytes, after_bytes = _size(model), _size(after)
        if after_bytes >= before_bytes:
            name = model.source.name
            self.notes.append(f"step '{name}' became larger: {before_bytes} bytes, now {after_bytes}; remove optimize")
        return after, {
            "quantize": optimize.quantize,
            "tolerance": optimize.tolerance,
            "calibration": calibration,
            "operators": dict(made.operators),
            "size_bytes": {"before": before_bytes, "after": after_bytes},
            "digest": {"before": str(model.digest), "after": str(after.digest)},
            "fields": fields(lost),
            "versions": dict(made.versions),
        }

    def quantized(self, model: ModelArtifact, optimize: Optimize, rows: Columns) -> Quantized:
        """Quantize a model, as a named check."""
        made: Quantized | None = None
        with self.checklist.check("optimize.quantizes") as found:
            made = quantized(model, optimize.quantize, rows, self.environment, self.cache)
            operators = ", ".join(f"{count} {kind}" for kind, count in made.operators.items())
            found.append(f"'{model.source.name}' {optimize.quantize}: {operators}")
        self.checklist.require()
        assert made is not None  # noqa: S101 - the check has passed
        return made

    def proven(
        self, before: ModelArtifact, after: ModelArtifact, optimize: Optimize, rows: Columns
    ) -> Mapping[str, Loss]:
        """Hold a quantized model against its original, as a named check; what it loses."""
        originals, found = self.originals, None
        expected = originals.golden.outputs if originals.is_single else originals.alone(before, rows).together
        assert expected is not None  # noqa: S101 - a single model has golden answers
        with self.checklist.check("optimize.agrees") as told:
            found = Losses.of(expected, originals.alone(after, rows), are_made=originals.are_made)
            told.append(found.check(optimize.tolerance, f"step '{before.source.name}', quantized,"))
        self.checklist.require()
        return found.worse if found else {}

    def together(self, made: Sequence[ModelArtifact], tolerance: float, loss: float) -> dict[str, Any]:
        """Hold the whole pipeline against its golden rows, as a named check: what it loses, for the report. It only has
        to run where its originals never answer twice the same.
        """
        found, golden = None, self.originals.golden
        with self.checklist.check("optimize.agrees") as told:
            answers = self.originals.whole(made, loss)
            if golden.outputs is not None:
                found = Losses.of(golden.outputs, answers, are_made=self.originals.are_made)
                told.append(found.check(tolerance, "the pipeline, its models quantized,"))
        self.checklist.require()
        return fields(found.worse) if found else {}

    def calibration(self, model: ModelArtifact, rows: Columns) -> str:
        """Which rows a model is calibrated with; a warning where they were made."""
        count = calibration_rows(rows).rows
        if not self.originals.are_made:
            return f"{count} golden rows"
        self.notes.append(f"step '{model.source.name}' {MADE_BADLY.format(rows=count)}")
        return f"{count} rows made for it"


def _size(model: ModelArtifact) -> int:
    """Bytes of the network, with weights beside it."""
    files = list(model.files.values()) if model.task is None else [network_of(model)[1]]
    return sum(file.stat().st_size for file in files)


def _refusal(model: ModelArtifact) -> str:
    name, runtime = model.source.name, "python" if model.kind else model.native
    why = f" ({model.reason})" if model.reason else ""
    if runtime == "tflite":
        how = "quantize it with TFLite's own converter (Optimize.DEFAULT) and remove optimize"
    else:
        how = "remove optimize, or quantize inside its own code"
    return f"step '{name}' has optimize and runs in {runtime}{why}: only models in onnxruntime are quantized; {how}"
