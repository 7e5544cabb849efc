"""`Absent`: what a predictor gets for a model of its own that is not on this disk; whoever started us may bring it."""

from __future__ import annotations

from collections.abc import Iterable


class Absent(BaseException):
    """Not an Exception: what a predictor does about faults of its models is not for one that comes in a moment.

    `used` are the models that were asked for here, as (model, version), the one longest unused first.
    """

    def __init__(self, model: str, version: str, used: Iterable[tuple[str, str]]) -> None:
        super().__init__(f"model {model!r}, version {version}, is not on the disk: disk_cache_size leaves it out")
        self.said = {"model": model, "version": version, "used": list(used)}
