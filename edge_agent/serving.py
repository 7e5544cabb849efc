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
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from bundle.model_folders import BASE
from columns.columns import Columns
from columns.schema import Field, Schema
from columns.types import ListOf, innermost
from columns.values import object_array
from edge_agent.quick import ShortWay
from edgepack.errors import BadInput, Unreachable
from runtimes.pipeline import LoadedPipeline

if TYPE_CHECKING:
    from bundle.pipeline import LogPolicy
    from edge_agent.spool import Alike

_WAKES = 8  # times that a request wakes what it asks for
_METADATA = {
    "metadata.last_model": "string",
    "metadata.pipeline_version": "string",
    "metadata.elapsed": "list<int64>",
    "metadata.partition": "string",
    "metadata.dropped": "list<string>",
}
_MODEL_VERSIONS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgepack:model")


class NotServed(BadInput):
    """No pipeline of that name answers here; the message lists those that do."""


class NotReady(Unreachable):
    """The pipeline is known but not loaded yet: asking again shortly may help."""


class Resting(NotReady):
    """The version is known and not in memory."""


class Late(Unreachable):
    """The time that a request may take is over."""


class NotAllowed(BadInput):
    """Whoever runs the agent has not allowed this; the message names the setting that would."""


class Kept(Protocol):
    """Rows on their way into the log."""

    def wait(self) -> object:
        """Return when they are as durable as the policy asks. Raises Unreachable if they never will be."""

    def then(self, callback: Callable[[], None]) -> None:
        """Call back, from any thread, once `wait` would not block."""

    def flush(self) -> None:
        """See to it that it comes to that, without waiting."""


class Spool(Protocol):
    """A pipeline's inference log, as far as serving needs it."""

    def record(self, result: Columns, request_id: str = "", *, bundle: str = "") -> int | None:
        """Keep the rows as the log policy asks: then the answer may leave. Raises Unreachable if it may not."""

    def submit(self, result: Columns, request_id: str = "", *, bundle: str = "") -> Kept | None:
        """As `record`, without waiting; None where nothing is logged."""

    def alike(self, row: Columns, varying: Sequence[str], request_id: str, *, bundle: str) -> Alike | None:
        """How rows that differ from this one in few columns are kept together."""

    def submit_alike(self, alike: Alike, rows: Sequence[Sequence[bytes | bytearray | memoryview]]) -> Kept:
        """As `submit`, for such rows, by the bytes of these columns."""

    @property
    def policy(self) -> LogPolicy:
        """What the log promises."""

    def hold(
        self, row: Columns, whole: Callable[[], Columns], request_id: str = "", *, bundle: str = ""
    ) -> Kept | None:
        """As `submit`, of rows that `whole` makes complete later, after the answer; None where they cannot be held."""

    def rows(self, after_seq: int | None = None, limit: int | None = None) -> Iterator[Columns]:
        """The rows still kept, oldest first."""

    def stats(self) -> dict[str, int]:
        """Figures for /metrics."""

    @property
    def refuses(self) -> str | None:
        """Why the log took no row just now, or None."""


class Control(Protocol):
    """What clients may do to pipelines; `edge_agent.repository`."""

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
class ServedModel:
    """One model of a pipeline, as `GET /models` lists it; `version` is a UUID made of the digest."""

    name: str
    sha: str
    version: str


@dataclass(frozen=True)
class ActivePipeline:
    """A pipeline that answers. `manifest` is its bundle's digest, `partition` what rows are named by."""

    name: str
    version: str
    manifest: str
    loaded: LoadedPipeline
    spool: Spool
    partition: str

    @cached_property
    def result_schema(self) -> Schema:
        """The columns of a result, in the order in which answers have them (docs/agent-http.md)."""
        anomalies = {"anomaly.count": "uint32", **{f"anomaly.{name}": "bool" for name in self.loaded.spec.validations}}
        return Schema(
            (
                *Schema.parse({"time": "int64"}),
                *(Field(f"in.{field.name}", field.type) for field in self.loaded.input),
                *(Field(f"out.{field.name}", field.type) for field in self.loaded.output),
                *Schema.parse({**anomalies, **_METADATA}),
            )
        )

    @cached_property
    def flat_schema(self) -> Schema:
        """The columns of a logged row of tensors that need not be rows: fields flat, their shapes beside them."""
        fields = (
            Field(each.name, ListOf(innermost(each.type))) if each.name.startswith(("in.", "out.")) else each
            for each in self.result_schema
        )
        return Schema((*fields, *Schema.parse({"metadata.shapes": "string"})))

    @cached_property
    def short_way(self) -> ShortWay | None:
        """The short way through it, if it has one."""
        return ShortWay.of(self)

    @cached_property
    def pace(self) -> Pace:
        """How long requests take here."""
        return Pace()

    @cached_property
    def lasting_columns(self) -> dict[str, np.ndarray]:
        """What every result of this pipeline says alike, as columns of one row."""
        return {
            "metadata.last_model": self.last_models[:1],
            "metadata.pipeline_version": object_array([self.version]),
            "metadata.partition": object_array([self.partition]),
            "metadata.dropped": object_array([[]]),
        }

    @cached_property
    def last_models(self) -> np.ndarray:
        """What results say of each model of the last step, by the index that `Outcome.models` gives."""
        said = [{"model_name": step.name, "model_sha": step.sha256} for step in self.loaded.last_models]
        return object_array([msgspec.json.encode(each).decode() for each in said])

    @cached_property
    def is_program(self) -> bool:
        """Whether it is a predictor, which takes and gives what it likes."""
        workers = [step.worker for step in self.loaded.spec.steps]
        return len(workers) == 1 and workers[0] is not None and workers[0].kind == "cortex"

    @cached_property
    def base(self) -> str:
        """The manifest that was installed: its own, or that of the bundle which was given other models here."""
        worker = self.loaded.spec.steps[0].worker
        return str(worker.options.get(BASE, self.manifest)) if worker is not None else self.manifest

    @cached_property
    def own_models(self) -> dict[str, tuple[str, ...]]:
        """The models that a predictor chooses among itself, with their versions, the latest last."""
        worker = self.loaded.spec.steps[0].worker
        told = worker.options.get("models", {}) if worker is not None and self.is_program else {}
        return {name: tuple(sorted(versions, key=int)) for name, versions in told.items()}

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The models, in the order of the steps."""
        return tuple(
            ServedModel(model.name, model.sha256, str(uuid.uuid5(_MODEL_VERSIONS, model.sha256 or model.name)))
            for step in self.loaded.spec.steps
            for model in step.every_model
        )


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


class _Slot:
    """A pipeline with the number of requests it has on lease."""

    def __init__(self, active: ActivePipeline) -> None:
        self.active, self.pace = active, active.pace
        self.leases = 0
        self.used = 0  # at which lease of all it was asked for last
        self.retired = False

    @property
    def is_done(self) -> bool:
        return self.retired and self.leases == 0


class _Lease:
    """A pipeline held for one request, to the end of a `with` block."""

    __slots__ = ("_lock", "_slot")

    def __init__(self, lock: threading.Lock, slot: _Slot) -> None:
        self._lock, self._slot = lock, slot

    def __enter__(self) -> ActivePipeline:
        return self._slot.active

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._slot.leases -= 1
            done = self._slot.is_done
        if done:
            self._slot.active.loaded.close()


class Serving:
    """The pipelines of one agent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._awaited: set[str] = set()
        self._numbered: dict[tuple[str, str], _Slot] = {}  # versions beside the one that a name stands for
        self._beside: dict[str, frozenset[str]] = {}  # which versions are to stay beside it
        self._resting: set[tuple[str, str]] = set()  # (name, number); the number is empty for the name's own
        self._leases = 0
        self.troubles: dict[str, str] = {}  # by model: why its newest files do not serve
        self.wake: Callable[[str, str], None] | None = None  # brings back what rests
        self.generation = 0  # changes whenever what answers does
        self._unloaded: dict[str, str] = {}  # by clients: name → manifest
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
        slots = list(self._slots.values())
        return len(slots) == 1 and slots[0].active.is_program and not self._resting

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
        suit a pipeline on this device; 0 where neither is known.
        """
        loaded = [slot.active.loaded for slot in list(self._slots.values())]
        return sum(each.at_once or (each.replicas + 1 if each.replicas > 1 else 0) for each in loaded)

    def switch(self, name: str, active: ActivePipeline) -> None:
        """Let a pipeline answer under a name from now on; the one before ends its requests and is closed."""
        with self._lock:
            before, self._slots[name] = self._slots.get(name), _Slot(active)
            self._slots[name].used = self._leases
            self._awaited.discard(name)
            self._unloaded.pop(name, None)
            self._resting -= {(name, ""), (name, number := _number(active))}
            same = self._numbered.pop((name, number), None)
            if before is not None and (old := _number(before.active)) in self._beside.get(name, ()) and old != number:
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
            self._resting = {key for key in self._resting if key[0] != name or key[1] in ("", *self._beside[name])}
            self.generation += 1
        for slot in slots:
            self._retire(slot)

    def add(self, name: str, active: ActivePipeline) -> None:
        """Let a version answer where its number is asked for, beside the one that the name stands for."""
        with self._lock:
            before = self._numbered.get((name, number := _number(active)))
            self._numbered[name, number] = _Slot(active)
            self._numbered[name, number].used = self._leases
            self._resting.discard((name, number))
            self.generation += 1
        self._retire(before)

    def rest(self, name: str, number: str) -> None:
        """Let a version go from memory that comes back when it is asked for; an empty number is the name's own."""
        with self._lock:
            place: dict[Any, _Slot] = self._numbered if number else self._slots
            slot = place.pop((name, number) if number else name, None)
            self._resting.add((name, number))
            self.generation += 1
        self._retire(slot)

    @property
    def in_memory(self) -> list[tuple[str, str]]:
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

    def numbers_of(self, name: str) -> list[str]:
        """The numbers of the versions beside the one that a name stands for, in memory or not."""
        own = self._slots.get(name)
        without = _number(own.active) if own else None
        return sorted(self._beside.get(name, frozenset()) - {without, ""}, key=int)

    def remove(self, name: str) -> None:
        """Stop answering under a name, whether a pipeline does or not."""
        with self._lock:
            before = self._slots.pop(name, None)
            self._awaited.discard(name)
            self._unloaded.pop(name, None)
            self._resting = {key for key in self._resting if key[0] != name}
            self.generation += 1
        self._retire(before)
        self.keep(name, ())
        self._beside.pop(name, None)

    def unload(self, name: str) -> None:
        """Stop answering under a name for now. Raises NotServed where no such pipeline answers."""
        with self._lock:
            before = self._slots.pop(self._resolve(name))
            self.generation += 1
            self._unloaded[name] = before.active.manifest
            self.generation += 1
        self._retire(before)

    @property
    def unloaded(self) -> dict[str, str]:
        """Manifest by name of what a client has unloaded."""
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

    def lease(self, name: str | None, version: str | None = None, *, wake: bool = False) -> _Lease:
        """Hold a pipeline for a request; None is the only one. `version` is one beside the one that a name stands for,
        where there is such; with `wake` what rests is brought back first, which may take seconds.

        Raises NotServed, NotReady while it loads or rests.
        """
        for left in reversed(range(_WAKES)):  # what was woken may rest again before it is held
            try:
                with self._lock:
                    slot = self._found(name, version)
                    self._leases += 1
                    slot.leases, slot.used = slot.leases + 1, self._leases
                return _Lease(self._lock, slot)
            except Resting:
                if not (wake and left) or self.wake is None:
                    raise
                self.wake(*self._asleep(name, version))
        raise AssertionError("the last time raises")

    def _found(self, name: str | None, version: str | None) -> _Slot:
        if version and (numbered := self._numbered.get((name or "", version))) is not None:
            return numbered
        if self._resting and (key := self._asleep(name, version)) in self._resting:
            raise Resting(f"model '{key[0]}' rests to save memory: an inference request wakes it", retry_after_s=1)
        return self._slots[self._resolve(name)]

    def _asleep(self, name: str | None, version: str | None) -> tuple[str, str]:
        """How a version that rests would be known."""
        name = name or (self.resting[0] if len(self.resting) == 1 and not self._slots else "")
        if version and (name, version) in self._resting:
            return name, version
        return name, ""

    def _retire(self, slot: _Slot | None) -> None:
        if slot is None:
            return
        with self._lock:
            slot.retired = True
            done = slot.is_done
        if done:
            slot.active.loaded.close()

    def _resolve(self, name: str | None) -> str:
        if name in self._slots:
            return name
        owners = [each for each, slot in self._slots.items() if name in slot.active.own_models]
        if len(owners) == 1:
            return owners[0]
        if name is None and len(self._slots) == 1 and not self.resting:
            return next(iter(self._slots))
        if name in self._unloaded:
            raise NotReady(f"pipeline '{name}' was unloaded: a client may load it again", retry_after_s=60)
        if name in self._awaited or not (self._slots or self._unloaded):
            raise NotReady(f"not ready: {self.waiting_for}", retry_after_s=1)
        served = ", ".join(f"'{each}'" for each in self.known)
        if name is not None:
            raise NotServed(f"pipeline '{name[:100]}' is not served here: there is {served}", field="pipeline")
        raise NotServed(f"several pipelines are served, choose one by its path: {served}", field="pipeline")


def _number(active: ActivePipeline) -> str:
    """The number of a version, empty where it has none."""
    number = active.loaded.spec.number
    return "" if number is None else str(number)
