"""`Serving`: which pipelines answer right now, and how one takes another's place without a failed request.

Rules:
- a request takes a pipeline on lease; a switch changes what the next lease gives, never what a running one
  has
- a pipeline that was replaced or removed is closed by whoever ends its last lease
- logs are not touched: a pipeline's spool outlives its versions and belongs to whoever opened it
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import msgspec
import numpy as np

from columns.columns import Columns
from columns.schema import Field, Schema
from columns.values import object_array
from edgepack.errors import BadInput, Unreachable
from runtimes.pipeline import LoadedPipeline

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


class Spool(Protocol):
    """A pipeline's inference log, as far as serving needs it."""

    def record(self, result: Columns, request_id: str = "", *, bundle: str = "") -> int | None:
        """Keep the rows as the log policy asks: then the answer may leave. Raises Unreachable if it may not."""

    def rows(self, after_seq: int | None = None, limit: int | None = None) -> Iterator[Columns]:
        """The rows still kept, oldest first."""

    def stats(self) -> dict[str, int]:
        """Figures for /metrics."""


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
    def lasting_columns(self) -> dict[str, np.ndarray]:
        """What every result of this pipeline says alike, as columns of one row."""
        last = self.loaded.spec.steps[-1]
        last_model = msgspec.json.encode({"model_name": last.name, "model_sha": last.sha256})
        return {
            "metadata.last_model": object_array([last_model.decode()]),
            "metadata.pipeline_version": object_array([self.version]),
            "metadata.partition": object_array([self.partition]),
            "metadata.dropped": object_array([[]]),
        }

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The models, in the order of the steps."""
        return tuple(
            ServedModel(step.name, step.sha256, str(uuid.uuid5(_MODEL_VERSIONS, step.sha256 or step.name)))
            for step in self.loaded.spec.steps
        )


class _Slot:
    """A pipeline with the number of requests it has on lease."""

    def __init__(self, active: ActivePipeline) -> None:
        self.active = active
        self.leases = 0
        self.retired = False

    @property
    def is_done(self) -> bool:
        return self.retired and self.leases == 0


class Serving:
    """The pipelines of one agent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._awaited: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Of all that answer, sorted."""
        return sorted(self._slots)

    @property
    def pipelines(self) -> list[ActivePipeline]:
        """All that answer, by name."""
        return [slot.active for _, slot in sorted(self._slots.items())]

    @property
    def waiting_for(self) -> str | None:
        """Why this agent is not ready, or None when it is."""
        if self._awaited:
            return "loading " + ", ".join(sorted(self._awaited))
        return None if self._slots else "no pipeline is active"

    def expect(self, names: Iterable[str]) -> None:
        """Say which pipelines are about to be loaded: until then requests for them are told to come back."""
        with self._lock:
            self._awaited = set(names) - set(self._slots)

    def switch(self, name: str, active: ActivePipeline) -> None:
        """Let a pipeline answer under a name from now on; the one before ends its requests and is closed."""
        with self._lock:
            before, self._slots[name] = self._slots.get(name), _Slot(active)
            self._awaited.discard(name)
        self._retire(before)

    def remove(self, name: str) -> None:
        """Stop answering under a name, whether a pipeline does or not."""
        with self._lock:
            before = self._slots.pop(name, None)
            self._awaited.discard(name)
        self._retire(before)

    def close(self) -> None:
        """Stop answering at all."""
        for name in self.names:
            self.remove(name)

    @contextmanager
    def lease(self, name: str | None) -> Iterator[ActivePipeline]:
        """Hold a pipeline for a request; None is the only one. Raises NotServed, NotReady while it loads."""
        with self._lock:
            slot = self._slots[self._resolve(name)]
            slot.leases += 1
        try:
            yield slot.active
        finally:
            with self._lock:
                slot.leases -= 1
                done = slot.is_done
            if done:
                slot.active.loaded.close()

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
        if name in self._awaited or not self._slots:
            raise NotReady(f"not ready: {self.waiting_for}", retry_after_s=1)
        served = ", ".join(f"'{each}'" for each in self.names)
        if name is not None:
            raise NotServed(f"pipeline '{name[:100]}' is not served here: there is {served}", field="pipeline")
        if len(self._slots) > 1:
            raise NotServed(f"several pipelines are served, choose one by its path: {served}", field="pipeline")
        return self.names[0]
