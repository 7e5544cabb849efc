"""`Making`: bundles made of models where they lie, which may take minutes: who makes one, and how long others wait."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from arch.target import Target
from bundle.bundle import Bundle
from bundle.model_folders import Found
from edge_agent.imports import fitting_bundles
from edge_agent.pipelines.serving import Key, Late
from edgepack.errors import BadInput, EdgepackError

_MOST_ASKED_FOR = 2  # made at once because requests ask for them


class Source(Protocol):
    """Where models lie, and what makes bundles of them."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def removes(self) -> bool:
        """Whether a model that it has no more is to be served no more."""

    def look(self) -> Found:
        """See what is there; nothing is opened as a model. Raises EdgepackError or OSError where that cannot be."""

    def make(self, name: str, number: str) -> Path:
        """Make and prove the bundle of one version: an OCI layout folder, which is the caller's to delete. Several
        threads may make several versions at once.

        Raises EdgepackError that says why it is none.
        """


class Making:
    """Makes bundles for one target. May be used by several threads at once."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._turns: dict[Key, threading.Lock] = {}
        self._asked_for = threading.Semaphore(_MOST_ASKED_FOR)

    @contextmanager
    def alone(self, key: Key) -> Iterator[None]:
        """Be the only one who makes a version."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            yield

    @contextmanager
    def alone_by(self, key: Key, by: float) -> Iterator[None]:
        """As `alone`, for a request that waits until `by`, a time.monotonic(). Raises Late."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with _held(turn, key, by), _held(self._asked_for, key, by):
            yield

    @contextmanager
    def bundle(self, source: Source, key: Key, make: Callable[[], Path] | None = None) -> Iterator[Bundle]:
        """Make a version's bundle, by default as its source does, whose files are there while it is held. Raises
        EdgepackError that says why not.
        """
        layout = source.make(*key) if make is None else make()
        try:
            found = fitting_bundles(layout, self._target)
            if [each.name for each in found] != [key[0]]:
                raise BadInput(f"'{source.name}' gives a bundle of other pipelines than '{key[0]}'")
            yield found[0]
        finally:
            shutil.rmtree(layout, ignore_errors=True)

    def forget(self, key: Key) -> None:
        """A version is gone."""
        with self._lock:
            self._turns.pop(key, None)


def lies_there(source: Source, key: Key, mark: str) -> bool:
    """Whether a source still has a version as it was looked at."""
    try:
        return source.look().marks.get(key[0], {}).get(key[1]) == mark
    except (EdgepackError, OSError):
        return False


@contextmanager
def _held(lock: threading.Lock | threading.Semaphore, key: Key, by: float) -> Iterator[None]:
    left = min(max(0.0, by - time.monotonic()), threading.TIMEOUT_MAX) if by < math.inf else threading.TIMEOUT_MAX
    if not lock.acquire(timeout=left):
        raise Late(f"model '{key[0]}' is being made, which takes longer than a request may: ask again", retry_after_s=5)
    try:
        yield
    finally:
        lock.release()
