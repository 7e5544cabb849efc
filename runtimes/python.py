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
from columns.schema import Schema
from edgepack.errors import RuntimeFailed
from runtimes.environment import SCRATCH, check_python, make_environment
from runtimes.worker import Job, Limits, Worker


@dataclass(frozen=True)
class Place:
    """Where a pipeline's workers find their packages. `environments` None: made for this pipeline alone."""

    environments: Path | None = None
    memory: str = "1Gi"  # of each worker, as [resources] says


class PythonRuntime:
    """One worker as a `Runtime`."""

    def __init__(self, worker: Worker, own_folder: Path | None = None) -> None:
        self.worker = worker
        self._own_folder = own_folder

    @classmethod
    def open(cls, bundle: OpenBundle, step: StepSpec, place: Place) -> PythonRuntime:
        """Make a step's environment, if it is not there yet, and start its worker.

        Raises RuntimeFailed when the model does not load, or is for another Python; BadInput or NotTrusted for wheels
        that do not fit or are damaged.
        """
        own = None if place.environments else Path(tempfile.mkdtemp(prefix="edgepack-environment-"))
        environments = place.environments or own
        assert environments is not None  # noqa: S101 - one of the two
        try:
            site = environment_of(bundle, step, environments)
            limits = Limits(memory_bytes=parse_bytes(place.memory), accelerators=bundle.target.accel != "none")
            worker = Worker.start(_job(bundle, step, site), limits, scratch=environments / SCRATCH)
        except BaseException:
            if own:
                rmtree(own, ignore_errors=True)
            raise
        return cls(worker, own)

    @property
    def input(self) -> Schema:
        """The fields it takes."""
        return self.worker.job.input

    @property
    def output(self) -> Schema:
        """The fields it gives."""
        return self.worker.job.output

    def infer(self, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Run the rows in the worker; see `Runtime.infer` and `Worker.infer`."""
        return dict(self.worker.infer(Columns(self.input, arrays, rows)).arrays)

    def close(self) -> None:
        """End the worker."""
        self.worker.close()
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
