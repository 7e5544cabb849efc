"""`LoadedPipeline`: the steps of an unpacked bundle in memory, run in sequence, with its validations.

The output fields of a step are the input fields of the next, by name; that they fit is checked when the
pipeline is opened. The first load of a bundle on a machine belongs into a child process: see
`runtimes.trial`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np

from bundle.pipeline import PipelineSpec, StepSpec
from bundle.store import OpenBundle
from bundle.validations import Validation
from columns.columns import Columns
from columns.schema import Field, Schema
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.protocol import Loader, Runtime

# runtime → class in runtimes/<runtime>.py; an engine is imported when a step needs it
_ENGINES = {"onnx": "OnnxRuntime"}


@dataclass(frozen=True)
class Outcome:
    """What one request gave: `elapsed_ns` one figure a step, `anomalies` one boolean a row a validation."""

    outputs: Columns
    anomalies: Mapping[str, np.ndarray]
    elapsed_ns: tuple[int, ...]


class LoadedPipeline:
    """A pipeline that answers. `infer` may be called by several threads at once."""

    def __init__(self, bundle: OpenBundle, steps: list[Runtime]) -> None:
        self.bundle, self.spec = bundle, bundle.spec
        self.input: Schema = steps[0].input
        self.output: Schema = steps[-1].output
        self.single_row = any(step.batch == "single" for step in bundle.spec.steps)
        self._steps = steps
        self._both = Schema(
            (
                *(Field(f"in.{field.name}", field.type) for field in self.input),
                *(Field(f"out.{field.name}", field.type) for field in self.output),
            )
        )
        self._validations = _compiled(bundle.spec, self.input, self.output)

    @classmethod
    def open(cls, folder: Path) -> LoadedPipeline:
        """Load every step of an unpacked bundle. Raises RuntimeFailed when an engine refuses a model."""
        bundle = OpenBundle(folder)
        with ExitStack() as undo:
            steps = []
            for step in bundle.spec.steps:
                steps.append(_load(bundle, step))
                undo.callback(steps[-1].close)
            _check_seams(bundle.spec, steps)
            pipeline = cls(bundle, steps)
            undo.pop_all()
        return pipeline

    def infer(self, inputs: Columns) -> Outcome:
        """Run all steps. Raises BadInput for rows that do not fit, RuntimeFailed when an engine gives up."""
        arrays, elapsed = inputs.arrays, []
        for step in self._steps:
            start = time.perf_counter_ns()
            arrays = step.infer(arrays, inputs.rows)
            elapsed.append(time.perf_counter_ns() - start)
        outputs = Columns(self.output, arrays, inputs.rows)
        return Outcome(outputs, self._anomalies(inputs, outputs), tuple(elapsed))

    def close(self) -> None:
        """Let go of all engines."""
        for step in self._steps:
            step.close()

    def _anomalies(self, inputs: Columns, outputs: Columns) -> dict[str, np.ndarray]:
        if not self._validations:
            return {}
        arrays = {f"in.{name}": array for name, array in inputs.arrays.items()}
        arrays.update((f"out.{name}", array) for name, array in outputs.arrays.items())
        both = Columns(self._both, arrays, inputs.rows)
        return {validation.name: validation.evaluate(both) for validation in self._validations}


def _load(bundle: OpenBundle, step: StepSpec) -> Runtime:
    if step.runtime not in _ENGINES:
        known = ", ".join(_ENGINES)
        raise RuntimeFailed(f"step '{step.name}' needs runtime '{step.runtime}': this version runs {known}")
    load: Loader = getattr(import_module(f"runtimes.{step.runtime}"), _ENGINES[step.runtime]).load
    return load(bundle.file(step.model), step)


def _check_seams(spec: PipelineSpec, steps: list[Runtime]) -> None:
    """Each step must take exactly what the one before it gives."""
    for number, (before, after) in enumerate(pairwise(steps), 1):
        gives = {field.name: field.type for field in before.output.fields}
        takes = {field.name: field.type for field in after.input.fields}
        if gives != takes:
            names = spec.steps[number - 1].name, spec.steps[number].name
            raise BadInput(
                f"pipeline step {number} '{names[0]}' gives {_listed(gives)}, "
                f"step {number + 1} '{names[1]}' takes {_listed(takes)}: rename with tensor_fields"
            )


def _listed(fields: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}' {kind}" for name, kind in fields.items())


def _compiled(spec: PipelineSpec, inputs: Schema, outputs: Schema) -> list[Validation]:
    return [Validation.compile(name, text, inputs, outputs) for name, text in spec.validations.items()]
