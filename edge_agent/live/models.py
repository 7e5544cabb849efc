"""`LiveModels`: models that change where they lie while they are served.

Rules:
- a mark says whether anything of a version has changed; one that stays the same for two looks is taken, so that files
  which are being written are not
- a version is made and proven before it answers; one that fails is not tried again until its mark changes, and what
  answered before goes on; the reason stands in the log, the status and the repository index
- a source that cannot be looked at changes nothing, nor does a fault of one model hold up the others
- while a version is made nobody waits but those who asked for it, and they no longer than a request may
- which versions stand for a name, and which leave memory and disk: `edge_agent.live.versions`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from arch.target import Target
from bundle.bundle import Bundle
from bundle.model_folders import Found
from edge_agent.activate import Activator
from edge_agent.live.bringing import Bringing
from edge_agent.live.making import Making, Source, lies_there
from edge_agent.live.troubles import Troubles, words
from edge_agent.live.versions import Budget, Versions, order
from edge_agent.loop import Backoff, Loop
from edge_agent.pipelines.serving import Key, Late, Serving
from edge_agent.state import State
from edge_agent.telemetry.events import event
from edgepack.errors import EdgepackError, Unreachable
from fleet.messages import Assigned
from runtimes.protocol import ModelAbsent

log = logging.getLogger("edgepack.agent")

_LOOKS = 3.0  # in an interval: one sees a change, the next that it has settled, and there is time to load it


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
        `trial` may be False only where making a bundle tries it on this very machine; where it is True requests for
        what rests wait for trials, so there should be no budget.
        """
        self._collect, self._has_leftovers = collect, False
        self._serving, self._activator, self._state = serving, activator, state
        self._sources, self._interval_s, self._trial = tuple(sources), interval_s, trial
        self._making = Making(target)
        self._bringing = Bringing(serving, self._making, self._switch_brought)
        self._versions = Versions(serving, activator, budget or Budget())
        self._turn = self._versions.turn  # of all that is noted here
        self._troubles = Troubles(serving, state)
        self._looks: dict[Source, Found] = {}  # the last at each
        self._owner: dict[str, Source] = {}
        self.loop = Loop("models", self.step, Backoff(interval_s / _LOOKS, interval_s), lambda error: None)
        serving.wake, serving.bring = self.wake, self.bring
        activator.kept = self._versions.in_use

    def adopt(self, source: Source, look: Found, number_of: Mapping[str, str]) -> None:
        """Take over what serves already: `look` is from before it was made, `number_of` its number by name."""
        installed = self._state.installed()
        for name, number in number_of.items():
            self._owner[name], self._versions.main[name] = source, number
            self._versions.staged[name, number] = installed[name].active
            self._versions.answers((name, number), look.marks[name][number])
        self._looks[source] = look

    def start(self, *, follow: bool = True) -> None:
        """Look, and from then on in a thread. Without `follow` twice, which takes what is there, and never again."""
        for _ in range(1 if follow else 2):
            self.loop.pass_once()
        with self._turn:
            self._versions.make_room(None)
        if follow:
            self.loop.start()

    def step(self) -> float:
        """Look once at all sources and take what has settled; returns the seconds until the next look."""
        for source in self._sources:
            look, problem = None, None
            try:
                look = source.look()
            except Exception as error:  # noqa: BLE001 - one source must not hold up the others
                problem = error
            with self._turn:
                self._troubles.tell_away(source, problem)
            if look is not None:
                self._compare(source, look)
        if self._has_leftovers:
            self._tidy()
        return self._interval_s / _LOOKS

    def _tidy(self) -> None:
        """Have bundles deleted that nobody needs; those that still answer a request are when it is over."""
        self._has_leftovers = bool(self._serving.leaving)
        self._collect()

    # What has changed

    def _compare(self, source: Source, look: Found) -> None:
        with self._turn:
            before = self._looks.get(source, Found({})).marks
            self._looks[source] = look
            mine = [key for key in self._versions.marks if self._owner.get(key[0]) is source]
        there = {(name, number) for marks in (before, look.marks) for name in marks for number in marks[name]}
        gone = [key for key in mine if key not in there and key[0] not in look.faults]
        for key in sorted(gone, key=lambda key: (key[0], order(key[1]))):  # the highest last, when the lower are gone
            self._forget(source, key)
        for name, marks in look.marks.items():
            for number in sorted(marks, key=order, reverse=True):
                is_settled = before.get(name, {}).get(number) == marks[number]
                if not self.loop.stopping and self._is_wanted(source, (name, number), marks[number], is_settled):
                    self._take(source, (name, number), marks[number])
        with self._turn:
            known = {*look.marks, *look.faults, *(name for name, _ in self._versions.marks)}
            self._owner = {name: owner for name, owner in self._owner.items() if owner is not source or name in known}
            self._tell(source)

    def _is_wanted(self, source: Source, key: Key, mark: str, is_settled: bool) -> bool:
        """Whether a version is to be made now."""
        with self._turn:
            if self._versions.marks.get(key) == mark:
                self._troubles.is_well(key)
                return False
            if not is_settled or self._troubles.is_refused(key, mark):
                return False
            if self._owner.setdefault(key[0], source) is not source:
                return False
            if not self._versions.may_wait(key):
                return True
            self._versions.wait(key, mark)
            self._troubles.is_well(key)  # as far as anybody knows
        return False

    def _take(self, source: Source, key: Key, mark: str) -> None:
        """Make, prove and switch; or note why not."""
        try:
            with self._making.alone(key), self._making.bundle(source, key) as bundle:
                if self.loop.stopping or not lies_there(source, key, mark):
                    return  # it is looked at again, and taken once it rests
                with self._turn:
                    self._switch(key, bundle, mark)
                    self._tell(source)
        except Exception as error:  # noqa: BLE001 - one model must not hold up the others
            self._refuse(source, key, mark, error)
            return
        self._tidy()

    def _switch(self, key: Key, bundle: Bundle, mark: str) -> None:
        """Have a version that was made answer; on any error what answered before goes on."""
        before = self._versions.staged.get(key)
        self._put(key, bundle)
        try:
            if not self._serves(key):
                self._load(key, is_new=True)
        except BaseException:
            self._versions.staged.pop(key)
            if before is not None:
                self._versions.staged[key] = before
            raise
        self._versions.answers(key, mark)
        self._troubles.is_well(key)
        event(log, "model taken", pipeline=key[0], number=key[1] or None, manifest=bundle.digest)
        self._versions.make_room(key)
        if any(each.absent for each in self._serving.pipelines if each.name == key[0]):
            self._state.forget_previous(key[0])  # the disk holds as many of its models as were asked for

    def _serves(self, key: Key) -> bool:
        """Whether what was made is what answers already: an agent that starts again finds it so."""
        name, number = key
        manifest, main = self._versions.staged[key].manifest, self._versions.main
        served = any(each.name == name and each.manifest == manifest for each in self._serving.pipelines)
        if served and name not in main:
            main[name] = number
        return served and main[name] == number

    def _refuse(self, source: Source, key: Key, mark: str, error: Exception) -> None:
        """Try a version no more until its files change, unless they have changed meanwhile."""
        if not lies_there(source, key, mark):
            return
        with self._turn:
            self._troubles.refuse(key, mark, error)
            if key in self._versions.unproven:
                self._versions.drop(key)
            self._tell(source)

    def _refuse_unproven(self, source: Source, key: Key, error: Exception) -> None:
        """As `_refuse`, for a version that nothing was made of yet: one that answered once may do so again."""
        with self._turn:
            mark = self._versions.marks.get(key) if key in self._versions.unproven else None
        if mark is not None:
            self._refuse(source, key, mark, error)

    def _tell(self, source: Source) -> None:
        self._troubles.tell(source, self._looks[source], self._owner)

    # What is gone

    def _forget(self, source: Source, key: Key) -> None:
        """A version is gone. The next lower one stands for the name; without any the name is not served."""
        name, number = key
        with self._turn:
            others = [each for each in self._versions.numbers(name) if each != number]
            was_main = self._versions.main.get(name) == number
        if was_main and others and not self._succeed(source, key, (name, max(others, key=order))):
            return
        with self._turn:
            self._versions.drop(key)
            self._making.forget(key)
            if not others:
                del self._owner[name]
                if source.removes:
                    self._activator.remove(name)
        event(log, "model removed", pipeline=name, number=number or None)
        self._tidy()

    def _succeed(self, source: Source, gone: Key, heir: Key) -> bool:
        """Have a lower version stand for a name; or note why not, and what is gone goes on."""

        def stand_in() -> None:
            self._versions.main[heir[0]] = heir[1]
            try:
                self._load(heir, is_new=heir in self._versions.unproven)
            except BaseException:
                self._versions.main[gone[0]] = gone[1]
                raise
            self._versions.answers(heir, self._versions.marks[heir])

        problem = None
        try:
            if not self._done(heir, stand_in):
                with self._making.alone(heir):
                    self._made(source, heir, stand_in)
        except Exception as error:  # noqa: BLE001 - one model must not hold up the others
            problem = error
            self._refuse_unproven(source, heir, error)
        with self._turn:
            self._troubles.stick(heir, problem)
        return problem is None

    # What rests

    def wake(self, key: Key, by: float) -> None:
        """Bring a version back that rests; an empty number is the one of the name. If it is being made for others,
        whoever asks waits until `by`, a time.monotonic().

        Raises Unreachable with the reason where it does not come, Late where that takes too long.
        """
        name = key[0]
        with self._turn:
            key = (name, key[1] or self._versions.main.get(name, ""))
            if not self._versions.rests(key):
                return
            source = self._owner[name]

        def answer() -> None:
            if self._versions.rests(key):
                self._load(key, is_new=key in self._versions.unproven)
                self._versions.answers(key, self._versions.marks[key])
                self._versions.make_room(key)

        try:
            if not self._done(key, answer):
                with self._making.alone_by(key, by):
                    self._made(source, key, answer)
        except Late:
            raise
        except Exception as error:
            self._refuse_unproven(source, key, error)
            if not isinstance(error, (EdgepackError, OSError)):
                raise  # a fault of ours, which is told with the request's id
            raise Unreachable(f"model '{name}' does not come back: {words(error)}", retry_after_s=5) from error

    def bring(self, name: str, absent: ModelAbsent, by: float) -> None:
        """Have a model answer that a predictor lacks: see `Bringing.bring`."""
        with self._turn:
            source, key = self._owner.get(name), (name, self._versions.main.get(name, ""))
            if source is None or key not in self._versions.marks:
                raise absent
            mark = self._looks[source].marks.get(name, {}).get(key[1], "")
        self._bringing.bring(source, key, absent, mark, by)
        self._tidy()

    def _switch_brought(self, key: Key, bundle: Bundle) -> None:
        with self._turn:
            self._switch(key, bundle, self._versions.marks[key])

    # Bundles

    def _done(self, key: Key, then: Callable[[], None]) -> bool:
        """Do something with a version that is on the disk; whether nothing is left to do, as where it is followed no
        more.
        """
        with self._turn:
            if key not in self._versions.marks:
                return True
            if key not in self._versions.staged:
                return False
            try:
                then()
            except EdgepackError:
                if self._versions.staged[key].manifest not in self._activator.staged():
                    del self._versions.staged[key]  # it was damaged: it is made when it is asked for again
                raise
        return True

    def _made(self, source: Source, key: Key, then: Callable[[], None]) -> None:
        """As `_done`, of a version that is made where it is not on the disk yet. It is the caller's alone."""
        if self._done(key, then):
            return
        with self._making.bundle(source, key) as bundle, self._turn:
            if key in self._versions.marks:
                self._put(key, bundle)
                then()

    def _put(self, key: Key, bundle: Bundle) -> None:
        """Have a bundle on this disk."""
        with self._activator.turn:  # nobody collects what is unpacked and not known yet
            self._activator.unpack(bundle)
            self._versions.staged[key] = Assigned(bundle.digest, bundle.index_digest, "")

    def _load(self, key: Key, *, is_new: bool) -> None:
        """Have a version on the disk answer: as the one of the name, if it is the highest, else beside it."""
        name, number = key
        self._versions.staged.move_to_end(key)
        version = self._versions.staged[key]
        if not self._versions.stands_for_its_name(key):
            self._activator.add(name, version, trial=is_new and self._trial)
            return
        if is_new:
            self._activator.activate(name, version, 0, trial=self._trial)
        else:
            self._activator.resume(name, version)
        self._versions.main[name] = number
