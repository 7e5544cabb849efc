"""`Pace`: how long requests take in a pipeline, which decides where the next is answered."""

from __future__ import annotations


class Pace:
    """How long small requests take in a pipeline's models: the shortest of late, as waiting for others is no work."""

    QUICK_NS = 200_000
    CALM_NS = 20_000_000

    def __init__(self) -> None:
        self.shortest_ns = 0.0  # 0: not known yet
        self._calm_bytes = -1

    def note(self, model_ns: int) -> None:
        """Take one request into account; an old record fades by a twentieth with each."""
        known = self.shortest_ns
        self.shortest_ns = float(model_ns) if not known else min(known * 1.05, model_ns)

    def note_size(self, model_ns: int, size: int) -> None:
        """Take one request of any size, in bytes, into account."""
        self._calm_bytes = max(self._calm_bytes, size) if model_ns < self.CALM_NS else -1

    def is_calm(self, size: int) -> bool:
        """Whether requests as large as this took no longer than somebody who comes meanwhile can wait."""
        return size <= self._calm_bytes

    @property
    def is_quick(self) -> bool:
        """Whether a request is over sooner than it is worth to hand it to a thread. The first one is not."""
        return 0 < self.shortest_ns < self.QUICK_NS
