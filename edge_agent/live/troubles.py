"""`Troubles`: what keeps models that are followed from being taken, told in the log, the status and the repository
index for as long as it is so.

A version that was refused is known by its mark: it is not tried again until that changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from bundle.model_folders import Found
from edge_agent.live.making import Source
from edge_agent.live.versions import order
from edge_agent.pipelines.serving import Key, Serving
from edge_agent.state import LIVE_NOTE, State
from edge_agent.telemetry.events import event
from edgepack.errors import EdgepackError

log = logging.getLogger("edgepack.agent")


@dataclass(frozen=True)
class Refusal:
    """Why a version of this mark was not taken."""

    mark: str
    reason: str


class Troubles:
    """Reasons by source, and by model of it. Each is logged once, and again when it is over. Callers hold a lock."""

    def __init__(self, serving: Serving, state: State) -> None:
        self._serving, self._state = serving, state
        self._refused: dict[Key, Refusal] = {}
        self._stuck: dict[str, str] = {}
        self._away: dict[Source, str] = {}
        self._of_models: dict[Source, Mapping[str, str]] = {}
        self._told: dict[str, str] = {}

    def refuse(self, key: Key, mark: str, error: Exception) -> None:
        """A version was made or loaded in vain."""
        self._refused[key] = Refusal(mark, _said(f"{_named(key)}: {words(error)}", error, None))

    def is_refused(self, key: Key, mark: str) -> bool:
        """Whether a version was tried already."""
        return key in self._refused and self._refused[key].mark == mark

    def is_well(self, key: Key) -> None:
        """A version answers, or is known to."""
        self._refused.pop(key, None)

    def stick(self, heir: Key, error: Exception | None) -> None:
        """Note why a version does not take the place of a higher one that is gone; None: it does."""
        before = self._stuck.pop(heir[0], None)
        if error is not None:
            self._stuck[heir[0]] = _said(f"{_named(heir)}: {words(error)}", error, before)

    def tell(self, source: Source, look: Found, owners: Mapping[str, Source]) -> None:
        """Say what is wrong with a source's models now; what is wrong no more is well again."""
        for name, number in list(self._refused):
            is_gone = number not in look.marks.get(name, {}) and name not in look.faults
            if is_gone and owners.get(name, source) is source:
                del self._refused[name, number]
        self._stuck = {name: reason for name, reason in self._stuck.items() if name in owners}
        reasons = {name: self._reason(source, name, marks, owners) for name, marks in look.marks.items()}
        self._of_models[source] = {name: why for name, why in (reasons | dict(look.faults)).items() if why}
        self._tell()

    def tell_away(self, source: Source, error: Exception | None) -> None:
        """Say why a source cannot be looked at; None: it can."""
        before = self._away.pop(source, None)
        if error is not None:
            reason = f"'{source.name}' cannot be looked at, what it held goes on: {words(error)}"
            self._away[source] = _said(reason, error, before)
        self._tell()

    def _reason(
        self, source: Source, name: str, numbers: Mapping[str, str], owners: Mapping[str, Source]
    ) -> str | None:
        """What is wrong with a model: of several versions, with the highest."""
        if (owner := owners.get(name, source)) is not source:
            return f"'{source.name}' and '{owner.name}' both have a model '{name}'"
        refused = [number for number in numbers if (name, number) in self._refused]
        if refused:
            return self._refused[name, max(refused, key=order)].reason
        return self._stuck.get(name)

    def _tell(self) -> None:
        models = {name: reason for each in self._of_models.values() for name, reason in each.items()}
        told = models | {source.name: reason for source, reason in self._away.items()}
        changed = {name: told.get(name) for name in {*told, *self._told} if told.get(name) != self._told.get(name)}
        for name, reason in sorted(changed.items()):
            if reason is None:
                event(log, "model is well again", pipeline=name)
            else:
                event(log, "model not taken", level=logging.ERROR, pipeline=name, reason=reason)
        if changed:
            self._state.beat(**{f"{LIVE_NOTE}{name}": reason for name, reason in changed.items()})
        self._told, self._serving.troubles = told, models


def words(error: Exception) -> str:
    """What went wrong, in a line."""
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    is_ours = not isinstance(error, (EdgepackError, OSError))
    return f"fault of ours: {type(error).__name__}: {said}" if is_ours else said


def _named(key: Key) -> str:
    return f"version {key[1]} of '{key[0]}'" if key[1] else f"'{key[0]}'"


def _said(reason: str, error: Exception, before: str | None) -> str:
    """The reason; what is our fault goes to the log with its traceback, once."""
    if reason != before and not isinstance(error, (EdgepackError, OSError)):
        log.error("fault of ours", exc_info=error)
    return reason
