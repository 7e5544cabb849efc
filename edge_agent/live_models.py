"""`LiveModels`: models that change where they lie while they are served.

Rules:
- a mark says whether anything of a version has changed; one that stays the same for two looks is taken, so that files
  which are being written are not
- a version is made and proven before it answers; one that fails is not tried again until its mark changes, and what
  answered before goes on; the reason stands in the log, the status and the repository index
- a source that cannot be looked at changes nothing
- the highest number stands for a model's name, the others answer where they are asked for
- at most so many versions are in memory and so many on the disk: the least recently used leave first, and come back
  when they are asked for
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from arch.target import Target
from edge_agent.activate import Activator
from edge_agent.events import event
from edge_agent.imports import fitting_bundles
from edge_agent.loop import Backoff, Loop
from edge_agent.serving import Serving
from edge_agent.state import LIVE_NOTE, State
from edgepack.errors import BadInput, EdgepackError, Unreachable
from fleet.messages import Assigned

log = logging.getLogger("edgepack.agent")

Key = tuple[str, str]  # a model's name and a version's number; empty where it has none

_LOOKS = 3.0  # in an interval: one sees a change, the next that it has settled, and there is time to load it


class Look(Protocol):
    """What a source holds."""

    @property
    def marks(self) -> Mapping[str, Mapping[str, str]]:
        """Model → number → mark."""

    @property
    def faults(self) -> Mapping[str, str]:
        """By model, why it cannot be read just now."""


class Source(Protocol):
    """Where models lie, and what makes bundles of them."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def removes(self) -> bool:
        """Whether a model that it has no more is to be served no more."""

    def look(self) -> Look:
        """See what is there; nothing is opened as a model. Raises EdgepackError or OSError where that cannot be."""

    def make(self, name: str, number: str) -> Path:
        """Make and prove the bundle of one version: an OCI layout folder, which is the caller's to delete.

        Raises EdgepackError that says why it is none.
        """


@dataclass(frozen=True)
class Budget:
    """At most so many versions in memory and on the disk; None: all."""

    in_memory: int | None = None
    on_disk: int | None = None


class LiveModels:
    """Follows sources. `step` is called by one thread; `wake` by any that answers a request."""

    def __init__(
        self,
        serving: Serving,
        activator: Activator,
        state: State,
        target: Target,
        sources: Sequence[Source],
        *,
        collect: Callable[[], None],
        interval_s: float = 30.0,
        budget: Budget | None = None,
        trial: bool = True,
    ) -> None:
        """`collect` deletes bundles that nobody needs any more; `interval_s` is the time in which a change answers;
        `trial` may be False only where making a bundle tries it on this very machine.
        """
        self._collect = collect
        self._serving, self._activator, self._state, self._target = serving, activator, state, target
        self._sources, self._interval_s, self._trial = tuple(sources), interval_s, trial
        self._budget = budget or Budget()
        self._owner: dict[str, Source] = {}
        self._taken: dict[Key, str] = {}  # the mark of what is served, or would be if it were asked for
        self._seen: dict[Key, str] = {}
        self._refused: dict[Key, str] = {}
        self._staged: OrderedDict[Key, Assigned] = OrderedDict()  # on the disk, the one longest unused first
        self._main: dict[str, str] = {}  # the number that stands for a name
        self._troubles: dict[str, str] = {}
        self._turn = threading.RLock()
        backoff = Backoff(interval_s / _LOOKS, interval_s)
        self._loop = Loop("models", self.step, backoff, lambda error: None)
        serving.wake = self.wake
        activator.kept = self._kept

    def _kept(self) -> list[str]:
        """Manifests that are still of use, beside those that the state knows."""
        staged = [each.manifest for each in list(self._staged.values())]
        return [*staged, *(each.base for each in self._serving.pipelines), *self._serving.unloaded.values()]

    def adopt(self, source: Source, look: Look, number_of: Mapping[str, str]) -> None:
        """Take over what serves already: `look` is from before it was made, `number_of` its number by name."""
        installed = self._state.installed()
        for name, number in number_of.items():
            self._owner[name], self._main[name] = source, number
            self._taken[name, number] = look.marks[name][number]
            self._staged[name, number] = installed[name].active
            self._serving.keep(name, {number})
        self._seen.update(((name, each), mark) for name, marks in look.marks.items() for each, mark in marks.items())

    def start(self, *, follow: bool = True) -> None:
        """Look once, and from then on in a thread."""
        self._loop.pass_once()
        with self._turn:
            self._make_room(None)
        if follow:
            self._loop.start()

    def stop(self, timeout_s: float) -> None:
        """Leave after the version that is being made."""
        self._loop.stop()
        self._loop.join(timeout_s)

    def step(self) -> float:
        """Look once at all sources and take what has settled; returns the seconds until the next look."""
        for source in self._sources:
            try:
                look = source.look()
            except (EdgepackError, OSError) as error:
                self._trouble(
                    source.name, f"'{source.name}' cannot be looked at, what it held goes on: {_words(error)}"
                )
                continue
            self._trouble(source.name, None)
            with self._turn:
                self._compare(source, look)
        return self._interval_s / _LOOKS

    def wake(self, name: str, number: str) -> None:
        """Bring a version back that rests. Raises Unreachable with the reason where it does not come."""
        with self._turn:
            number = number or self._main.get(name, "")
            if not self._rests(name, number):
                return
            try:
                self._load(name, number)
            except (EdgepackError, OSError) as error:
                raise Unreachable(f"model '{name}' does not come back: {_words(error)}", retry_after_s=5) from error
            self._make_room((name, number))

    # What has changed

    def _compare(self, source: Source, look: Look) -> None:
        for name, fault in look.faults.items():
            self._trouble(name, fault)
        here = {(name, number): mark for name, marks in look.marks.items() for number, mark in marks.items()}
        mine = {key for key in self._taken if self._owner.get(key[0]) is source and key[0] not in look.faults}
        for key in sorted(mine - set(here) - set(self._seen)):
            self._forget(*key)
        for name, marks in look.marks.items():
            for number in sorted(marks, key=_order, reverse=True):
                self._consider(source, name, number, marks)
        stale = {key for key in self._seen if self._owner.get(key[0], source) is source and key not in here}
        self._seen = {key: mark for key, mark in self._seen.items() if key not in stale} | here

    def _consider(self, source: Source, name: str, number: str, marks: Mapping[str, str]) -> None:
        key, mark = (name, number), marks[number]
        if self._taken.get(key) == mark or self._refused.get(key) == mark or self._seen.get(key) != mark:
            if self._taken.get(key) == mark and not self._has_refused(name, marks):
                self._trouble(name, None)
            return
        if self._owner.setdefault(name, source) is not source:
            self._refused[key] = mark
            self._trouble(name, f"'{source.name}' and '{self._owner[name].name}' both have a model '{name}'")
            return
        if self._may_wait(name, number):
            self._taken[key] = mark
            self._serving.keep(name, self._numbers(name))
            self._serving.rest(name, number)
            return
        self._take(source, key, mark)

    def _take(self, source: Source, key: Key, mark: str) -> None:
        """Make, prove and switch; or note why not."""
        name, number = key
        before = self._staged.get(key)
        try:
            self._stage(source, name, number)
            if source.look().marks.get(name, {}).get(number) != mark:
                raise Changing
            if not self._serves(name, number):
                self._load(name, number, trial=self._trial)
        except Changing:
            self._restore(key, before)  # it is looked at again, and taken once it rests
            return
        except (EdgepackError, OSError) as error:
            self._restore(key, before)
            self._refused[key] = mark
            self._trouble(name, f"{_named(name, number)}: {_words(error)}")
            return
        self._taken[key] = mark
        self._refused.pop(key, None)
        self._serving.keep(name, self._numbers(name))
        self._trouble(name, None)
        event(log, "model taken", pipeline=name, number=number or None, manifest=self._staged[key].manifest)
        self._make_room(key)
        self._collect()

    def _serves(self, name: str, number: str) -> bool:
        """Whether what was made is what answers already: an agent that starts again finds it so."""
        manifest = self._staged[name, number].manifest
        served = any(each.name == name and each.manifest == manifest for each in self._serving.pipelines)
        if served and name not in self._main:
            self._main[name] = number
        return served and self._main[name] == number

    def _restore(self, key: Key, before: Assigned | None) -> None:
        if before is None:
            self._staged.pop(key, None)
        else:
            self._staged[key] = before

    def _forget(self, name: str, number: str) -> None:
        """A version is gone. The next lower one stands for the name; without any the name is not served."""
        was_main = self._main.get(name) == number
        others = [each for each in self._numbers(name) if each != number]
        if was_main and others:
            highest = max(others, key=_order)
            self._main[name] = highest
            try:
                self._load(name, highest)
            except (EdgepackError, OSError) as error:
                self._main[name] = number
                self._trouble(name, f"{_named(name, highest)}: {_words(error)}")
                return
        del self._taken[name, number]
        self._staged.pop((name, number), None)
        self._refused.pop((name, number), None)
        if others:
            self._serving.keep(name, others)
        else:
            self._main.pop(name, None)
            if self._owner.pop(name).removes:
                self._activator.remove(name)
            self._trouble(name, None)
        event(log, "model removed", pipeline=name, number=number or None)
        self._collect()

    # Bundles

    def _stage(self, source: Source, name: str, number: str) -> None:
        """Make a version's bundle and have it on this disk."""
        layout = source.make(name, number)
        try:
            found = fitting_bundles(layout, self._target)
            if [each.name for each in found] != [name]:
                raise BadInput(f"'{source.name}' gives a bundle of other pipelines than '{name}'")
            with self._activator.turn:  # nobody collects what is unpacked and not known yet
                self._activator.unpack(found[0])
                self._staged[name, number] = Assigned(found[0].digest, found[0].index_digest, "")
        finally:
            shutil.rmtree(layout, ignore_errors=True)

    def _load(self, name: str, number: str, *, trial: bool = False) -> None:
        """Have a version answer: as the one of the name, if it is the highest, else beside it."""
        if (name, number) not in self._staged:
            self._stage(self._owner[name], name, number)
            trial = self._trial
        self._staged.move_to_end((name, number))
        version = self._staged[name, number]
        main = self._main.get(name)
        if main is None or _order(number) >= _order(main):
            self._serving.keep(name, {*self._numbers(name), number})
            self._activator.activate(name, version, 0, trial=trial)
            self._main[name] = number
        else:
            self._activator.add(name, version, trial=trial)

    # Memory and disk

    def _may_wait(self, name: str, number: str) -> bool:
        """Whether a version need not be made before it is asked for: it is not the highest, and there is no room."""
        main, most = self._main.get(name), self._budget.in_memory
        is_new = (name, number) not in self._taken
        return (
            is_new
            and most is not None
            and main is not None
            and _order(number) < _order(main)
            and (len(self._loaded()) >= most)
        )

    def _make_room(self, asked: Key | None) -> None:
        """Let go of what was not asked for longest."""
        most = self._budget.in_memory
        for name, number in self._loaded():
            if most is not None and len(self._loaded()) > most and (name, number) != asked:
                self._serving.rest(name, "" if self._main.get(name) == number else number)
                event(log, "model rests", pipeline=name, number=number or None)
        loaded = set(self._loaded())
        for key in [key for key in self._staged if key not in loaded and key != asked]:
            if self._budget.on_disk is not None and len(self._staged) > self._budget.on_disk:
                self._activator.discard(self._staged.pop(key).manifest)

    def _loaded(self) -> list[Key]:
        """Versions in memory, the one longest unused first."""
        found = ((name, number or self._main.get(name, "")) for name, number in self._serving.in_memory)
        return [key for key in found if key in self._taken]

    def _rests(self, name: str, number: str) -> bool:
        return (name, number) in self._taken and (name, number) not in self._loaded()

    def _numbers(self, name: str) -> list[str]:
        return [number for each, number in self._taken if each == name]

    # What is told

    def _has_refused(self, name: str, marks: Mapping[str, str]) -> bool:
        return any(self._refused.get((name, number)) == mark for number, mark in marks.items())

    def _trouble(self, name: str, reason: str | None) -> None:
        """Say once what is wrong with a model, and that it is well again."""
        if self._troubles.get(name) == reason:
            return
        if reason is None:
            del self._troubles[name]
            event(log, "model is well again", pipeline=name)
        else:
            self._troubles[name] = reason
            event(log, "model not taken", level=logging.ERROR, pipeline=name, reason=reason)
        self._serving.troubles = dict(self._troubles)
        self._state.beat(**{f"{LIVE_NOTE}{name}": reason})


class Changing(Exception):
    """Files of a version changed while its bundle was made."""


def _order(number: str) -> int:
    return int(number or 0)


def _named(name: str, number: str) -> str:
    return f"version {number} of '{name}'" if number else f"'{name}'"


def _words(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
