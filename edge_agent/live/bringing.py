"""`Bringing`: models of a predictor that its bundle leaves out (`disk_cache_size`), brought when they are asked for.

A bundle with that model in, and the least recently used one out, takes the place of the one that serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from bundle.bundle import Bundle
from edge_agent.live.making import Making, Source, lies_there
from edge_agent.live.troubles import words
from edge_agent.pipelines.serving import Key, Late, Serving
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable
from runtimes.protocol import ModelAbsent

_AGAIN_S = 30.0


@runtime_checkable
class Bringer(Protocol):
    """A source whose bundles leave models of a predictor out."""

    def bring(self, name: str, absent: ModelAbsent) -> Path:
        """As `Source.make`, with a model that the bundle before leaves out."""


class Bringing:
    """Brings models, for one request at a time of each pipeline."""

    def __init__(self, serving: Serving, making: Making, switch: Callable[[Key, Bundle], None]) -> None:
        """`switch` has a bundle answer."""
        self._serving, self._making, self._switch = serving, making, switch
        self._refused: dict[tuple[str, str, str], _Failure] = {}  # by pipeline, model and version

    def bring(self, source: Source, key: Key, absent: ModelAbsent, mark: str, by: float) -> None:
        """Have a model answer; `mark` is that of the source's files when they were last looked at. Raises Unreachable
        that names the model and says why it does not come, Late.
        """
        if not isinstance(source, Bringer):
            raise absent
        model = (key[0], absent.model, absent.version)
        try:
            with self._making.alone_by(key, by):
                if self._is_there(key[0], absent):
                    return  # others asked for it as well
                if (failure := self._refused.pop(model, None)) is not None and failure.holds(mark):
                    self._refused[model] = failure
                    raise _refusal(absent, failure.reason)
                with self._making.bundle(source, key, partial(source.bring, key[0], absent)) as bundle:
                    self._switch(key, bundle)
        except (Late, _Refused):
            raise
        except Exception as error:
            if isinstance(error, (BadInput, RuntimeFailed)) and lies_there(source, key, mark):
                self._refused[model] = _Failure(mark, words(error), time.monotonic() + _AGAIN_S)
            if not isinstance(error, (EdgepackError, OSError)):
                raise  # a fault of ours, which is told with the request's id
            raise _refusal(absent, words(error)) from error

    def _is_there(self, name: str, absent: ModelAbsent) -> bool:
        active = next((each for each in self._serving.pipelines if each.name == name), None)
        return active is not None and (absent.model, absent.version) not in active.absent


@dataclass(frozen=True)
class _Failure:
    """Why a model was brought in vain, with files of this mark; until when that is not tried again."""

    mark: str
    reason: str
    until: float  # monotonic seconds

    def holds(self, mark: str) -> bool:
        return self.mark == mark and time.monotonic() < self.until


class _Refused(Unreachable):
    """A model does not come; it is said why."""


def _refusal(absent: ModelAbsent, reason: str) -> _Refused:
    return _Refused(f"model '{absent.model}', version {absent.version}, does not come: {reason}", retry_after_s=5)
