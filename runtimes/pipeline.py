"""`LoadedPipeline`: the steps of an unpacked bundle in memory, run in sequence, with its validations.

The output fields of a step are the input fields of the next, by name; that they fit is checked when the
pipeline is opened. The first load of a bundle on a machine belongs into a child process: see
`runtimes.trial`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arch.providers import Choice
from bundle.pipeline import PipelineSpec, StepSpec
from bundle.store import OpenBundle
from bundle.task import NETWORK
from bundle.validations import Validation
from columns.columns import Columns
from columns.json_value import VALUE, as_texts, value_schema
from columns.schema import Field, Schema
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.cpus import share_of_threads, using_threads
from runtimes.memory import resident_bytes
from runtimes.protocol import Loader, Runtime, TensorRuntime, ValueRuntime
from runtimes.routing import RoutedStep

if TYPE_CHECKING:
    from runtimes.worker import Worker

# runtime → class in runtimes/<runtime>.py; an engine is imported when a step needs it.
# Beside them `python`, whose steps are more than a file
_ENGINES = {"onnx": "OnnxRuntime", "tflite": "TfliteRuntime", "container": "ContainerRuntime"}


@dataclass(frozen=True)
class Outcome:
    """What one request gave: `elapsed_ns` one figure a step, `anomalies` one boolean a row a validation.

    `models` are indices into `LoadedPipeline.last_models`, one a row, None where it has one; `asked` the steps that
    have shadow models, with what they were asked; `validations_ns` the time for anomalies, 0 without.
    """

    outputs: Columns
    anomalies: Mapping[str, np.ndarray]
    elapsed_ns: tuple[int, ...]
    models: np.ndarray | None = None
    asked: tuple[tuple[RoutedStep, Mapping[str, np.ndarray]], ...] = ()
    validations_ns: int = 0


class LoadedPipeline:
    """A pipeline that answers. `infer` may be called by several threads at once.

    `tensors` is the engine of a single native step, to be asked by its own tensors; None where there is no such.
    `values` is a single step that takes one value, JSON or bytes, beside rows of its fields; None as well.
    `workers` are the processes that answer for it, `replicas` of each model; none where all runs in this process.
    """

    def __init__(self, bundle: OpenBundle, steps: list[Runtime]) -> None:
        self.bundle, self.spec = bundle, bundle.spec
        self.input: Schema = steps[0].input
        self.output: Schema = steps[-1].output
        self.single_row = any(step.batch == "single" for step in bundle.spec.steps)
        self.workers: tuple[Worker, ...] = ()
        self.replicas = 1
        self.at_once = 0  # requests that suit it at the same time, where somebody has measured it
        self.memory_bytes: dict[str, int] = {}  # that each native model took when it was loaded
        # steps without schema, whose value is JSON or bytes
        self.takes_any, self.gives_any = (_is_free(bundle.spec.steps[at]) for at in (0, -1))
        self.step_names = tuple(step.name for step in bundle.spec.steps)
        self._steps = steps
        last, routing = bundle.spec.steps[-1], bundle.spec.steps[-1].routing
        self.last_models = (
            tuple(routing.models[name] for name in routing.split) if routing and routing.split else (last,)
        )
        self.waits_for_others = bool(bundle.spec.containers)  # who may take seconds to answer, or never do
        self.has_shadows = any(step.routing and step.routing.shadow for step in bundle.spec.steps)
        self.shadow_names = tuple(name for step in bundle.spec.steps if step.routing for name in step.routing.shadow)
        only = steps[0] if len(steps) == 1 else None
        self.tensors: TensorRuntime | None = only if isinstance(only, TensorRuntime) else None
        takes_values = bool(_options(bundle.spec.steps[0]).get("values"))
        self.values: ValueRuntime | None = only if takes_values and isinstance(only, ValueRuntime) else None
        self._both = Schema(
            (
                *(Field(f"in.{field.name}", field.type) for field in self.input),
                *(Field(f"out.{field.name}", field.type) for field in self.output),
            )
        )
        self._validations = _compiled(bundle.spec, self.input, self.output)

    @classmethod
    def open(
        cls,
        folder: Path,
        environments: Path | None = None,
        replicas: int | None = None,
        request_s: float | None = None,
    ) -> LoadedPipeline:
        """Load every step of an unpacked bundle. Raises RuntimeFailed when an engine refuses a model.

        `environments` keeps what python steps import; without it that is made for this pipeline and deleted with it.
        `replicas` is how many processes answer for each model (1: native ones in this process), else as the bundle
        says. `request_s` is how long a worker may take for one request, where that is not the usual.
        """
        bundle = OpenBundle(folder)
        replicas = replicas or bundle.spec.resources.replicas
        workers: list[Worker] = []
        memory: dict[str, int] = {}
        load: Callable[[StepSpec], Runtime] = partial(_load, bundle, environments, replicas, workers, request_s)
        if replicas == 1:
            load = partial(_weighed, load, bundle, memory)
        with ExitStack() as undo:
            steps = []
            for step in bundle.spec.steps:
                steps.append(_opened(step, load))
                undo.callback(steps[-1].close)
            _check_seams(bundle.spec, steps)
            pipeline = cls(bundle, steps)
            pipeline.workers, pipeline.replicas, pipeline.memory_bytes = tuple(workers), replicas, memory
            undo.pop_all()
        return pipeline

    def infer(self, inputs: Columns) -> Outcome:
        """Run all steps; shadow models are not asked here, but by `shadows`.

        Raises BadInput for rows that do not fit, RuntimeFailed when an engine gives up.
        """
        arrays, elapsed = inputs.arrays, []
        models: np.ndarray | None = None
        asked: list[tuple[RoutedStep, Mapping[str, np.ndarray]]] = []
        for step in self._steps:
            start = time.perf_counter_ns()
            if isinstance(step, RoutedStep):
                routed = step.route(arrays, inputs.rows, inputs)
                if step.shadow_names:
                    asked.append((step, arrays))
                arrays, models = routed.outputs, routed.models
            else:
                arrays, models = step.infer(arrays, inputs.rows), None
            elapsed.append(time.perf_counter_ns() - start)
        outputs = Columns(value_schema(arrays[VALUE]) if self.gives_any else self.output, arrays, inputs.rows)
        start = time.perf_counter_ns()
        anomalies = self.anomalies(inputs, outputs)
        judged_ns = time.perf_counter_ns() - start if anomalies else 0
        return Outcome(outputs, anomalies, tuple(elapsed), models, tuple(asked), judged_ns)

    def shadows(self, outcome: Outcome) -> dict[str, Columns]:
        """What shadow models say of the rows of a request that was answered; those that say nothing are missing."""
        rows = outcome.outputs.rows
        return {name: said for step, arrays in outcome.asked for name, said in step.shadow(arrays, rows).items()}

    def rehearse(self, inputs: Columns) -> Columns:
        """The outputs as the first model of each step gives them, after all others ran as well: for golden rows."""
        arrays = inputs.arrays
        for step in self._steps:
            ask = step.rehearse if isinstance(step, RoutedStep) else step.infer
            arrays = ask(arrays, inputs.rows)
        if self.gives_any:
            arrays = {VALUE: as_texts(arrays[VALUE])}
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


def _weighed(
    load: Callable[[StepSpec], Runtime], bundle: OpenBundle, memory: dict[str, int], step: StepSpec
) -> Runtime:
    """Load a model, and note what a native one takes of this process's memory."""
    before = resident_bytes()
    runtime = load(step)
    if step.runtime in _ENGINES:
        # what a model before gave back may be taken again without growing: the weights are there in any case
        memory[step.name] = max(resident_bytes() - before, _weights(bundle, step).stat().st_size)
    return runtime


def _load(
    bundle: OpenBundle,
    environments: Path | None,
    replicas: int,
    workers: list[Worker],
    request_s: float | None,
    step: StepSpec,
) -> Runtime:
    if step.runtime == "container" or (step.runtime != "python" and replicas == 1):
        with using_threads(share_of_threads(bundle.spec.resources.cpus, 1)):
            return load_engine(_file(bundle, step), step)
    from runtimes.engines import EngineProcesses
    from runtimes.environment import SCRATCH
    from runtimes.python import Place, PythonRuntime
    from runtimes.worker import REQUEST_S, Limits

    asked = bundle.spec.resources
    threads = share_of_threads(asked.cpus, replicas) if replicas > 1 else 0
    started: PythonRuntime | EngineProcesses
    if step.runtime == "python":
        place = Place(environments, asked.memory, replicas, threads, request_s or REQUEST_S)
        started = PythonRuntime.open(bundle, step, place)
    else:
        limits = Limits(memory_bytes=None, threads=threads, accelerators=bundle.target.accel != "none")
        scratch = environments / SCRATCH if environments else None
        started = EngineProcesses.start(_file(bundle, step), step, limits, replicas, scratch=scratch)
    workers += started.replicas.workers
    return started


def _file(bundle: OpenBundle, step: StepSpec) -> Path:
    """What a native engine opens: the model's file; the folder of one with a task."""
    return bundle.file(step.model) if step.task is None else bundle.model(step.model)


def _weights(bundle: OpenBundle, step: StepSpec) -> Path:
    return bundle.file(step.model if step.task is None else f"{step.model}/{NETWORK}")


def load_engine(path: Path, step: StepSpec) -> Runtime:
    """Load a model into its native engine, in this process. Raises RuntimeFailed when the engine refuses it."""
    if step.runtime not in _ENGINES:
        known = ", ".join([*_ENGINES, "python"])
        raise RuntimeFailed(f"step '{step.name}' needs runtime '{step.runtime}': this version runs {known}")
    if step.task is not None:
        from runtimes.tasks import load as load_task

        return load_task(path, step)
    load: Loader = getattr(import_module(f"runtimes.{step.runtime}"), _ENGINES[step.runtime]).load
    return load(path, step)


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


def _is_free(step: StepSpec) -> bool:
    return bool(_options(step).get("json"))


def _options(step: StepSpec) -> Mapping[str, object]:
    """Those of a step's worker."""
    return {} if step.worker is None else step.worker.options


def _listed(fields: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}' {kind}" for name, kind in fields.items())


def _compiled(spec: PipelineSpec, inputs: Schema, outputs: Schema) -> list[Validation]:
    return [Validation.compile(name, text, inputs, outputs) for name, text in spec.validations.items()]
