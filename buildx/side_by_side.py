"""Running jobs beside each other in threads that never hold their process: Ctrl-C ends a build at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TypeVar

Made = TypeVar("Made")


def side_by_side(jobs: Sequence[Callable[[], Made]], at_once: int) -> list[Made]:
    """Run jobs, so many at once; their results in the order given.

    After a failure no further job begins, those that run are waited for, and the failure is raised. An interruption
    waits for nobody: a job that is cut off must leave nothing that anyone takes for whole.
    """
    futures: list[Future[Made]] = [Future() for _ in jobs]
    pairs, taking = zip(jobs, futures, strict=True), threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        while True:
            with taking:
                job, future = next(pairs, (None, None))
            if job is None or future is None:
                return
            if future.set_running_or_notify_cancel():
                _run(job, future, failures)

    # not an executor's threads: the interpreter waits for those before it ends
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(futures)))]
    for thread in threads:
        thread.start()
    wait(futures, return_when=FIRST_EXCEPTION)
    if failures:
        for future in futures:
            future.cancel()
        for thread in threads:
            thread.join()
        raise failures[0]  # the first in time: others may have failed because of it
    return [future.result() for future in futures]


def _run(job: Callable[[], Made], future: Future[Made], failures: list[BaseException]) -> None:
    try:
        made = job()
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the result
        failures.append(error)
        future.set_exception(error)
    else:
        future.set_result(made)
