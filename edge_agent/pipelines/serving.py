"""`Serving`: which pipelines answer right now, and how one takes another's place without a failed request.

Rules:
- a request takes a pipeline on lease; a switch changes what the next lease gives, never what a running one
  has
- a pipeline that was replaced or removed is closed by whoever ends its last lease
- one version answers under a pipeline's name; others of a model that has several answer where their number is asked for
- what rests was let go of to save memory: whoever asks for it with `wake` waits until it is back
- logs are not touched: a pipeline's spool outlives its versions and belongs to whoever opened it
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.lease import Lease, Slot
from edgepack.errors import BadInput, Unreachable
from runtimes.protocol import CONTAINER_REQUESTS, ModelAbsent

LATEST = "latest"  # a version: the one that a name stands for
_WAKES = 8  # times that a request wakes what it asks for
_BESIDE_CONTAINERS = 2  # threads that no container can keep

Key = tuple[str, str]  # a pipeline's name and a version's number, which is empty for the name's own


class NotServed(BadInput):
    """No pipeline of that name answers here; the message lists those that do."""


class NotReady(Unreachable):
    """The pipeline is known but not loaded yet: asking again shortly may help."""


class Resting(NotReady):
    """The version is known and not in memory."""

    def __init__(self, key: Key) -> None:
        words = f"model '{key[0]}' rests to save memory: an inference request wakes it"
        super().__init__(words, retry_after_s=1)
        self.key = key


class Late(Unreachable):
    """The time that a request may take is over."""


class NotAllowed(BadInput):
    """Whoever runs the agent has not allowed this; the message names the setting that would."""


class Control(Protocol):
    """What clients may do to pipelines; `edge_agent.pipelines.repository`."""

    def load(self, name: str) -> None:
        """Have an installed pipeline answer."""

    def unload(self, name: str) -> None:
        """Stop answering under a name, and free the memory."""


@dataclass(frozen=True)
class Tally:
    """What was counted of a pipeline's requests; `stages_ns` are of those that succeeded."""

    succeeded: int = 0
    failed: int = 0
    rows: int = 0
    stages_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Asleep:
    """What is known of a version that rests: whether it is a predictor, and the models that it chooses among."""

    is_program: bool = False
    models: frozenset[str] = frozenset()


class Serving:
    """The pipelines of one agent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._awaited: set[str] = set()
        self._numbered: dict[Key, Slot] = {}  # versions beside the one that a name stands for
        self._beside: dict[str, frozenset[str]] = {}  # which versions are to stay beside it
        self._resting: dict[Key, Asleep] = {}
        self._leases = 0
        self._retired: list[Slot] = []
        self.troubles: dict[str, str] = {}  # by model: why its newest files do not serve
        # brings back what rests, with the time.monotonic() from which on nobody waits for it any more
        self.wake: Callable[[Key, float], None] | None = None
        # brings a model that a predictor lacks, by the pipeline's name, as `wake` does
        self.bring: Callable[[str, ModelAbsent, float], None] | None = None
        self.while_waking: Callable[[], AbstractContextManager[None]] = nullcontext  # around a request that waits so
        self.generation = 0  # changes whenever what answers does
        self._unloaded: dict[str, str] = {}  # by clients: name → the manifest that was installed
        self.control: Control | None = None  # None: clients load and unload nothing
        self.tally: Callable[[str], Tally | None] = lambda name: None  # who counts requests sets it

    @property
    def names(self) -> list[str]:
        """Of all that answer, sorted."""
        return sorted(self._slots)

    @property
    def pipelines(self) -> list[ActivePipeline]:
        """All that answer, by name."""
        return [slot.active for _, slot in sorted(self._slots.items())]

    @property
    def is_one_program(self) -> bool:
        """Whether all that is served is one predictor."""
        if (only := self._only()) is None:
            return False
        slot, asleep = self._slots.get(only), self._resting.get((only, ""), Asleep())
        return slot.active.is_program if slot is not None else asleep.is_program

    @property
    def waiting_for(self) -> str | None:
        """Why this agent is not ready, or None when it is."""
        if self._awaited:
            return "loading " + ", ".join(sorted(self._awaited))
        if not self._slots and not self._unloaded and not self._resting:
            return "no pipeline is active"
        return next((why for pipeline in self.pipelines if (why := pipeline.spool.refuses)), None)

    def expect(self, names: Iterable[str]) -> None:
        """Say which pipelines are about to be loaded: until then requests for them are told to come back."""
        with self._lock:
            self._awaited = set(names) - set(self._slots)

    @property
    def wanted_threads(self) -> int:
        """How many requests are to be at work at once: one a replica and one more that is read meanwhile, or as many as
        suit a pipeline on this device, beside those that may all wait for containers; 0 where none of it is known.
        """
        loaded = [slot.active.loaded for slot in list(self._slots.values())]
        containers = sum(len(each.spec.containers) for each in loaded)
        beside = containers * CONTAINER_REQUESTS + _BESIDE_CONTAINERS if containers else 0
        return beside + sum(each.at_once or (each.replicas + 1 if each.replicas > 1 else 0) for each in loaded)

    def switch(self, name: str, active: ActivePipeline) -> None:
        """Let a pipeline answer under a name from now on; the one before ends its requests and is closed."""
        with self._lock:
            before, self._slots[name] = self._slots.get(name), Slot(active)
            self._slots[name].used = self._leases
            self._awaited.discard(name)
            self._unloaded.pop(name, None)
            for key in ((name, ""), (name, number := active.number)):
                self._resting.pop(key, None)
            same = self._numbered.pop((name, number), None)
            if before is not None and (old := before.active.number) in self._beside.get(name, ()) and old != number:
                self._numbered[name, old], before = before, None
            self.generation += 1
        self._retire(before)
        self._retire(same)

    def keep(self, name: str, numbers: Iterable[str]) -> None:
        """Say which versions of a model are there; those that are not stop answering beside the one of the name."""
        with self._lock:
            self._beside[name] = frozenset(numbers)
            gone = [key for key in self._numbered if key[0] == name and key[1] not in self._beside[name]]
            slots = [self._numbered.pop(key) for key in gone]
            stay = ("", *self._beside[name])
            self._resting = {key: each for key, each in self._resting.items() if key[0] != name or key[1] in stay}
            self.generation += 1
        for slot in slots:
            self._retire(slot)

    def add(self, name: str, active: ActivePipeline) -> None:
        """Let a version answer where its number is asked for, beside the one that the name stands for."""
        with self._lock:
            before = self._numbered.get((name, number := active.number))
            self._numbered[name, number] = Slot(active)
            self._numbered[name, number].used = self._leases
            self._resting.pop((name, number), None)
            self.generation += 1
        self._retire(before)

    def rest(self, name: str, number: str) -> None:
        """Let a version go from memory that comes back when it is asked for; an empty number is the name's own."""
        with self._lock:
            place: dict[Any, Slot] = self._numbered if number else self._slots
            slot = place.pop((name, number) if number else name, None)
            active = slot.active if slot is not None else None
            self._resting[name, number] = (
                Asleep(active.is_program, frozenset(active.own_models)) if active is not None else Asleep()
            )
            self.generation += 1
        self._retire(slot)

    @property
    def in_memory(self) -> list[Key]:
        """(name, number) of all that answers, the one longest unused first; the number is empty for a name's own."""
        with self._lock:
            found = {(name, ""): slot.used for name, slot in self._slots.items()}
            found |= {key: slot.used for key, slot in self._numbered.items()}
        return sorted(found, key=lambda key: (found[key], key))

    @property
    def resting(self) -> list[str]:
        """The names of which the highest version is not in memory."""
        return sorted({name for name, _ in list(self._resting)} - set(self._slots))

    @property
    def known(self) -> list[str]:
        """Of all that answer, or would after they were woken, sorted."""
        return sorted({*self._slots, *self.resting})

    @property
    def owned(self) -> dict[str, str]:
        """The models that predictors choose among, in memory or not, each with the pipeline that a request for its name
        reaches; without those that are named as a pipeline is, or that several have.
        """
        owners: dict[str, set[str]] = {}
        for owner, slot in list(self._slots.items()):
            for model in slot.active.own_models:
                owners.setdefault(model, set()).add(owner)
        for (owner, _), asleep in list(self._resting.items()):
            for model in asleep.models:
                owners.setdefault(model, set()).add(owner)
        known = self.known
        return {each: owner for each, (owner, *others) in sorted(owners.items()) if not others and each not in known}

    def numbers_of(self, name: str) -> list[str]:
        """The numbers of the versions beside the one that a name stands for, in memory or not."""
        own = self._slots.get(name)
        without = own.active.number if own else None
        return sorted(self._beside.get(name, frozenset()) - {without, ""}, key=int)

    def remove(self, name: str) -> None:
        """Stop answering under a name, whether a pipeline does or not."""
        with self._lock:
            before = self._slots.pop(name, None)
            self._awaited.discard(name)
            self._unloaded.pop(name, None)
            self._resting = {key: each for key, each in self._resting.items() if key[0] != name}
            self.generation += 1
        self._retire(before)
        self.keep(name, ())
        self._beside.pop(name, None)

    def unload(self, name: str) -> None:
        """Stop answering under a name for now. Raises NotServed where no such pipeline answers, NotReady where it
        rests, NotAllowed where it is the name of one of the models that a predictor chooses among.
        """
        with self._lock:
            if (owner := self._resolve(name)) != name:
                raise NotAllowed(f"'{name}' is one of the models of '{owner}': unload '{owner}', which is all of them")
            before = self._awake(name)
            del self._slots[name]
            self._unloaded[name] = before.active.base
            self.generation += 1
        self._retire(before)

    @property
    def unloaded(self) -> dict[str, str]:
        """By name, the manifest that was installed of what a client has unloaded."""
        return dict(sorted(list(self._unloaded.items())))

    def close(self) -> None:
        """Stop answering at all."""
        for name in {*self.names, *self._beside}:
            self.remove(name)

    def is_quick(self, name: str | None) -> bool:
        """Whether a small request to this pipeline is over sooner than it would be handed to a thread."""
        if self._resting:
            return False  # what rests may be woken, which takes seconds
        slot = self._slots.get(name) if name is not None else next(iter(self._slots.values()), None)
        if slot is None:
            return True  # the answer is a refusal, which is quick
        loaded = slot.active.loaded
        return slot.pace.is_quick and not (loaded.workers or loaded.waits_for_others)  # these may hang when they like

    def is_calm(self, name: str | None, size: int) -> bool:
        """Whether a client that is alone may be answered in the serving thread: nobody waits behind it."""
        slot = self._slots.get(name) if name is not None else next(iter(self._slots.values()), None)
        return (
            slot is not None
            and slot.pace.is_calm(size)
            and not (slot.active.loaded.workers or slot.active.loaded.waits_for_others or self._resting)
        )

    def lease(self, name: str | None, version: str | None = None, *, wake_by: float | None = None) -> Lease:
        """Hold a pipeline for a request; None is the only one. `version` is one beside the one that a name stands for,
        where there is such. With `wake_by`, a time.monotonic(), what rests is brought back first, which may take that
        long.

        Raises NotServed, NotReady while it loads or rests, Late where it is not back in time.
        """
        for left in reversed(range(_WAKES)):  # what was woken may rest again before it is held
            try:
                with self._lock:
                    slot = self._found(name, version)
                    self._leases += 1
                    slot.leases, slot.used = slot.leases + 1, self._leases
                return Lease(self._lock, slot)
            except Resting as resting:
                if wake_by is None or not left or self.wake is None:
                    raise
                self._wake(self.wake, resting.key, wake_by)
        raise AssertionError("the last time raises")

    def bring_back(self, name: str, absent: ModelAbsent, by: float) -> None:
        """Have a model answer that a predictor lacks, by a time.monotonic(). Raises Unreachable where it does not come,
        Late where that takes too long.
        """
        if self.bring is None:
            raise absent
        if time.monotonic() > by:
            raise Late(f"model '{absent.model}' did not come in the time of a request: ask again", retry_after_s=1)
        with self.while_waking():
            self.bring(name, absent, by)

    @property
    def leaving(self) -> frozenset[str]:
        """Manifests of what was replaced, and still answers requests that it had before."""
        with self._lock:
            self._retired = [slot for slot in self._retired if not slot.is_done]
            return frozenset(slot.active.manifest for slot in self._retired)

    def _wake(self, wake: Callable[[Key, float], None], key: Key, by: float) -> None:
        if time.monotonic() > by:
            raise Late(f"model '{key[0]}' did not come back in the time of a request: ask again", retry_after_s=1)
        with self.while_waking():
            wake(key, by)

    def _found(self, name: str | None, version: str | None) -> Slot:
        name = self._only() if name is None else name
        if name is not None and version and version != LATEST:
            if (numbered := self._numbered.get((name, version))) is not None:
                return numbered
            if (name, version) in self._resting:
                raise Resting((name, version))
        return self._awake(self._resolve(name))

    def _only(self) -> str | None:
        """The name of the only pipeline that is known."""
        known = self.known if self._resting else list(self._slots)
        return known[0] if len(known) == 1 else None

    def _awake(self, name: str) -> Slot:
        """What a name stands for, which is known. Raises Resting."""
        if (slot := self._slots.get(name)) is None:
            raise Resting((name, ""))
        return slot

    def _retire(self, slot: Slot | None) -> None:
        if slot is None:
            return
        with self._lock:
            slot.retired = True
            done = slot.is_done
            self._retired = [*(each for each in self._retired if not each.is_done), *([] if done else [slot])]
        if done:
            slot.active.loaded.close()

    def _resolve(self, name: str | None) -> str:
        """The pipeline known by a name, awake or not: its own, or that of a model which it chooses among."""
        if name in self._slots or (name, "") in self._resting:
            return str(name)
        if (owner := self.owned.get(name or "")) is not None:
            return owner
        if name in self._unloaded:
            raise NotReady(f"pipeline '{name}' was unloaded: a client may load it again", retry_after_s=60)
        if name in self._awaited or not (self.known or self._unloaded):
            raise NotReady(f"not ready: {self.waiting_for}", retry_after_s=1)
        served = ", ".join(f"'{each}'" for each in self.known)
        if name is not None:
            raise NotServed(f"pipeline '{name[:100]}' is not served here: there is {served}", field="pipeline")
        raise NotServed(f"several pipelines are served, choose one by its path: {served}", field="pipeline")
