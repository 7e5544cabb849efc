"""`Interpreters`: those of one TFLite model, kept by the shapes that they are ready for.

An interpreter holds one request at a time, and other shapes than the last cost it a new layout of its memory, up to
milliseconds. So each shape that comes again has one of its own, as far as that goes. Rules:

- one that has the shapes is taken, of several the one that rested shortest
- where none has, another is made as long as there are fewer than `most`
- then the one that rested longest takes the new shapes
- while all are at work one more is made, and not kept
- one that failed is not given back: nobody knows what it holds
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Shapes = tuple[tuple[int, ...], ...]


class Interpreters:
    """`make` opens one with the shapes `first`, `resize` gives one others; either may raise."""

    def __init__(
        self, make: Callable[[], Any], resize: Callable[[Any, Shapes], None], first: Shapes, most: int
    ) -> None:
        self._make, self._resize, self._first, self._most = make, resize, first, most
        self._idle: list[tuple[Shapes, Any]] = []  # the one that rested longest first
        self._alive = 0  # idle or at work
        self._lock = threading.Lock()

    @property
    def kept(self) -> tuple[Shapes, ...]:
        """The shapes of those that wait for a request."""
        with self._lock:
            return tuple(shapes for shapes, _ in self._idle)

    def add(self, interpreter: Any) -> None:
        """Keep one that was made elsewhere, as `make` does."""
        with self._lock:
            self._alive += 1
            self._idle.append((self._first, interpreter))

    @contextmanager
    def of(self, shapes: Shapes, *, keep: bool = True) -> Iterator[Any]:
        """An interpreter of these shapes, for this request alone; without `keep` it is let go of afterwards."""
        known, interpreter = self._taken(shapes)
        fine = False
        try:
            if interpreter is None:
                known, interpreter = self._first, self._make()
            if known != shapes:
                self._resize(interpreter, shapes)
            yield interpreter
            fine = keep
        finally:
            self._give_back(shapes, interpreter if fine else None)

    def close(self) -> None:
        """Let go of all that wait."""
        with self._lock:
            self._alive -= len(self._idle)
            self._idle.clear()

    def _taken(self, shapes: Shapes) -> tuple[Shapes, Any]:
        """One that waits, or None where one is to be made."""
        with self._lock:
            fitting = [at for at, (known, _) in enumerate(self._idle) if known == shapes]
            if fitting:
                return self._idle.pop(fitting[-1])
            if self._idle and self._alive >= self._most:
                return self._idle.pop(0)
            self._alive += 1
            return (), None

    def _give_back(self, shapes: Shapes, interpreter: Any) -> None:
        with self._lock:
            if interpreter is None or self._alive > self._most:
                self._alive -= 1
            else:
                self._idle.append((shapes, interpreter))
