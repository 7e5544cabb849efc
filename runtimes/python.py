"""`PythonRuntime`: a step that is user-made code, in a worker with the environment that came with its bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np

from bundle.pipeline import StepSpec, parse_bytes
from bundle.store import OpenBundle
from columns.columns import Columns
from columns.json_value import whole_schema
from columns.schema import Schema
from edgepack.errors import RuntimeFailed
from runtimes.environment import SCRATCH, check_python, make_environment
from runtimes.replicas import Replicas, ReplicatedStep
from runtimes.worker import REQUEST_S, Job, Limits


@dataclass(frozen=True)
class Place:
    """Where a pipeline's workers find their packages. `environments` None: made for this pipeline alone."""

    environments: Path | None = None
    memory: str = "1Gi"  # of each worker, as [resources] says
    replicas: int = 1  # workers of each step
    threads: int = 0  # of each worker; 0: as many as this process may use
    request_s: float = REQUEST_S  # that one request may take


class PythonRuntime(ReplicatedStep):
    """The workers of one python step as a `Runtime`."""

    def __init__(self, replicas: Replicas, own_folder: Path | None = None) -> None:
        super().__init__(replicas)
        self._own_folder = own_folder

    @classmethod
    def open(cls, bundle: OpenBundle, step: StepSpec, place: Place) -> PythonRuntime:
        """Make a step's environment, if it is not there yet, and start its workers.

        Raises RuntimeFailed when the model does not load, or is for another Python; BadInput or NotTrusted for wheels
        that do not fit or are damaged.
        """
        own = None if place.environments else Path(tempfile.mkdtemp(prefix="edgepack-environment-"))
        environments = place.environments or own
        assert environments is not None  # noqa: S101 - one of the two
        try:
            site = environment_of(bundle, step, environments)
            accelerators = bundle.target.accel != "none"
            limits = Limits(
                request_s=place.request_s,
                memory_bytes=parse_bytes(place.memory),
                threads=place.threads,
                accelerators=accelerators,
            )
            job, scratch = _job(bundle, step, site), environments / SCRATCH
            replicas = Replicas.start(job, limits, place.replicas, scratch=scratch)
        except BaseException:
            if own:
                rmtree(own, ignore_errors=True)
            raise
        return cls(replicas, own)

    def infer(self, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Run the rows in a free worker; the value of a step without schema is JSON text or bytes."""
        if not self.replicas.job.options.get("json"):
            return super().infer(arrays, rows)
        return dict(self.replicas.infer(Columns(whole_schema(arrays), arrays, rows)).arrays)

    def infer_value(self, value: Columns) -> Columns:
        """Ask one JSON value, or bytes, of a step that takes such beside its rows; `columns.json_value` says how."""
        return self.replicas.infer(value)

    def close(self) -> None:
        """End the workers."""
        super().close()
        if self._own_folder:
            rmtree(self._own_folder, ignore_errors=True)


def environment_of(bundle: OpenBundle, step: StepSpec, environments: Path) -> Path:
    """The site folder of a step, made if it is not there."""
    if step.worker is None:
        raise RuntimeFailed(f"step '{step.name}' of runtime 'python' does not say how its worker runs")
    check_python(step.name, step.worker.python)
    return make_environment(bundle.wheels(step.name), environments)


def environments_of(bundle: OpenBundle, environments: Path) -> list[str]:
    """Make what all python steps of a bundle import; returns the names of the folders."""
    return [environment_of(bundle, step, environments).name for step in bundle.spec.python_models]


def _job(bundle: OpenBundle, step: StepSpec, site: Path) -> Job:
    assert step.worker is not None  # noqa: S101 - seen by environment_of
    return Job(
        name=step.name,
        kind=step.worker.kind,
        model=bundle.model(step.model),
        input=Schema.parse(step.input),
        output=Schema.parse(step.output),
        sites=(site,),
        options=step.worker.options,
    )
