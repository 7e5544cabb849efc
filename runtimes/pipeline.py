"""`LoadedPipeline`: the steps of an unpacked bundle in memory, run in sequence, with its validations.

The output fields of a step are the input fields of the next, by name; that they fit is checked when the
pipeline is opened. The first load of a bundle on a machine belongs into a child process: see
`runtimes.trial`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arch.providers import Choice
from bundle.pipeline import PipelineSpec, StepSpec
from bundle.store import OpenBundle
from bundle.validations import Validation
from columns.columns import Columns
from columns.schema import Field, Schema
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.protocol import Loader, Runtime, TensorRuntime
from runtimes.routing import RoutedStep

if TYPE_CHECKING:
    from runtimes.python import PythonRuntime

# runtime → class in runtimes/<runtime>.py; an engine is imported when a step needs it
_ENGINES = {"onnx": "OnnxRuntime"}  # beside them `python`, whose steps are more than a file


@dataclass(frozen=True)
class Outcome:
    """What one request gave: `elapsed_ns` one figure a step, `anomalies` one boolean a row a validation.

    `models` are indices into `LoadedPipeline.last_models`, one a row, None where it has one; `shadows` what shadow
    models gave, `left_out` those that gave nothing.
    """

    outputs: Columns
    anomalies: Mapping[str, np.ndarray]
    elapsed_ns: tuple[int, ...]
    models: np.ndarray | None = None
    shadows: Mapping[str, Columns] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


class LoadedPipeline:
    """A pipeline that answers. `infer` may be called by several threads at once.

    `tensors` is the engine of a single native step, to be asked by its own tensors; None where there is no such.
    """

    def __init__(self, bundle: OpenBundle, steps: list[Runtime]) -> None:
        self.bundle, self.spec = bundle, bundle.spec
        self.input: Schema = steps[0].input
        self.output: Schema = steps[-1].output
        self.single_row = any(step.batch == "single" for step in bundle.spec.steps)
        self.workers: tuple[PythonRuntime, ...] = ()
        self._steps = steps
        last, routing = bundle.spec.steps[-1], bundle.spec.steps[-1].routing
        self.last_models = (
            tuple(routing.models[name] for name in routing.split) if routing and routing.split else (last,)
        )
        self.has_shadows = any(step.routing and step.routing.shadow for step in bundle.spec.steps)
        only = steps[0] if len(steps) == 1 else None
        self.tensors: TensorRuntime | None = only if isinstance(only, TensorRuntime) else None
        self._both = Schema(
            (
                *(Field(f"in.{field.name}", field.type) for field in self.input),
                *(Field(f"out.{field.name}", field.type) for field in self.output),
            )
        )
        self._validations = _compiled(bundle.spec, self.input, self.output)

    @classmethod
    def open(cls, folder: Path, environments: Path | None = None) -> LoadedPipeline:
        """Load every step of an unpacked bundle. Raises RuntimeFailed when an engine refuses a model.

        `environments` keeps what python steps import; without it that is made for this pipeline and deleted with it.
        """
        bundle = OpenBundle(folder)
        workers: list[PythonRuntime] = []
        load = partial(_load, bundle, environments, workers)
        with ExitStack() as undo:
            steps = []
            for step in bundle.spec.steps:
                steps.append(_opened(step, load))
                undo.callback(steps[-1].close)
            _check_seams(bundle.spec, steps)
            pipeline = cls(bundle, steps)
            pipeline.workers = tuple(workers)
            undo.pop_all()
        return pipeline

    def infer(self, inputs: Columns, *, is_busy: bool = False) -> Outcome:
        """Run all steps; shadow models only where others do not wait (`is_busy`).

        Raises BadInput for rows that do not fit, RuntimeFailed when an engine gives up.
        """
        arrays, elapsed = inputs.arrays, []
        models: np.ndarray | None = None
        shadows: dict[str, Columns] = {}
        left_out: list[str] = []
        for step in self._steps:
            start = time.perf_counter_ns()
            if isinstance(step, RoutedStep):
                routed = step.route(arrays, inputs.rows, inputs, is_busy=is_busy)
                arrays, models = routed.outputs, routed.models
                shadows.update(routed.shadows)
                left_out += routed.left_out
            else:
                arrays, models = step.infer(arrays, inputs.rows), None
            elapsed.append(time.perf_counter_ns() - start)
        outputs = Columns(self.output, arrays, inputs.rows)
        anomalies = self.anomalies(inputs, outputs)
        return Outcome(outputs, anomalies, tuple(elapsed), models, shadows, tuple(left_out))

    def rehearse(self, inputs: Columns) -> Columns:
        """The outputs as the first model of each step gives them, after all others ran as well: for golden rows."""
        arrays = inputs.arrays
        for step in self._steps:
            ask = step.rehearse if isinstance(step, RoutedStep) else step.infer
            arrays = ask(arrays, inputs.rows)
        return Columns(self.output, arrays, inputs.rows)

    @property
    def providers(self) -> dict[str, Choice]:
        """What each native model computes on, and what it was not given, with the reason."""
        named: dict[str, Runtime] = {}
        for step, runtime in zip(self.spec.steps, self._steps, strict=True):
            named |= runtime.runtimes if isinstance(runtime, RoutedStep) else {step.name: runtime}
        found = {name: getattr(runtime, "providers", None) for name, runtime in named.items()}
        return {name: choice for name, choice in found.items() if isinstance(choice, Choice)}

    def close(self) -> None:
        """Let go of all engines."""
        for step in self._steps:
            step.close()

    def anomalies(self, inputs: Columns, outputs: Columns) -> dict[str, np.ndarray]:
        """Evaluate the validations on rows: one boolean a row and validation, true is an anomaly."""
        if not self._validations:
            return {}
        arrays = {f"in.{name}": array for name, array in inputs.arrays.items()}
        arrays.update((f"out.{name}", array) for name, array in outputs.arrays.items())
        both = Columns(self._both, arrays, inputs.rows)
        return {validation.name: validation.evaluate(both) for validation in self._validations}


def _opened(step: StepSpec, load: Callable[[StepSpec], Runtime]) -> Runtime:
    """A step with its model, or with all of its models."""
    return load(step) if step.routing is None else RoutedStep(step, step.routing, load)


def _load(bundle: OpenBundle, environments: Path | None, workers: list[PythonRuntime], step: StepSpec) -> Runtime:
    if step.runtime == "python":
        from runtimes.python import Place, PythonRuntime

        workers.append(PythonRuntime.open(bundle, step, Place(environments, bundle.spec.resources.memory)))
        return workers[-1]
    if step.runtime not in _ENGINES:
        known = ", ".join([*_ENGINES, "python"])
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
