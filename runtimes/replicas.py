"""`Replicas`: several workers of one step. A free one takes the next request.

Rules:
- the one that answered last is asked first: its caches are warm, and the others' memory may rest
- one that is starting again is passed over; a request waits only while another is at work and may become free
- when none is ready, a request is refused at once, with the reason and the time of the one that is back first
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from columns.columns import Columns
from columns.schema import Schema
from runtimes.worker import Answer, Body, Job, Limits, Pieces, Worker


class Replicas:
    """The workers of one step, started together. `infer` and `ask` may be called by several threads at once."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = tuple(workers)
        self._free = list(workers)
        self._change = threading.Condition()
        for worker in workers:
            worker.on_ready = self._tell

    @classmethod
    def start(cls, job: Job, limits: Limits, count: int = 1, *, scratch: Path | None = None) -> Replicas:
        """Start `count` workers at once and wait until all have loaded the model, else RuntimeFailed."""
        with ExitStack() as undo:
            workers = []
            for replica in range(count):
                workers.append(Worker.begin(job, limits, scratch=scratch, replica=replica))
                undo.callback(workers[-1].close)
            for worker in workers:
                worker.wait()
            undo.pop_all()
        return cls(workers)

    @property
    def job(self) -> Job:
        """What each of them runs."""
        return self.workers[0].job

    def infer(self, inputs: Columns, deadline_s: float | None = None) -> Columns:
        """Run rows through a free worker; see `Worker.infer`."""
        with self._taken(deadline_s) as (worker, left_s):
            return worker.infer(inputs, left_s)

    def ask(self, pieces: Pieces, check: Callable[[Body], Answer]) -> Answer:
        """Send a body to a free worker; see `Worker.ask`."""
        with self._taken(None) as (worker, left_s):
            return worker.ask(pieces, check, left_s)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()

    @contextmanager
    def _taken(self, deadline_s: float | None) -> Iterator[tuple[Worker, float]]:
        """A worker for one request, and the seconds that are left for it."""
        deadline = time.monotonic() + (deadline_s or self.workers[0].limits.request_s)
        with self._change:
            worker = self._next(deadline)
            self._free.remove(worker)
        try:
            yield worker, max(0.001, deadline - time.monotonic())
        finally:
            with self._change:
                self._free.append(worker)
                self._change.notify()

    def _next(self, deadline: float) -> Worker:
        """The free and ready one that answered last. Raises Unreachable."""
        while True:
            ready = [worker for worker in self.workers if worker.pid is not None]
            found = next((worker for worker in reversed(self._free) if worker in ready), None)
            if found is not None:
                return found
            if not ready:
                refusals = [worker.refusal() for worker in self.workers]
                raise min(refusals, key=lambda each: each.retry_after_s or 0)
            if not self._change.wait(deadline - time.monotonic()):
                raise ready[0].busy()

    def _tell(self) -> None:
        with self._change:
            self._change.notify()


class ReplicatedStep:
    """A step whose model runs in replicas: a `Runtime`."""

    def __init__(self, replicas: Replicas) -> None:
        self.replicas = replicas

    @property
    def input(self) -> Schema:
        """The fields it takes."""
        return self.replicas.job.input

    @property
    def output(self) -> Schema:
        """The fields it gives."""
        return self.replicas.job.output

    def infer(self, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Run the rows in a free process; see `Runtime.infer` and `Replicas.infer`."""
        return dict(self.replicas.infer(Columns(self.input, arrays, rows)).arrays)

    def close(self) -> None:
        """End the processes."""
        self.replicas.close()
