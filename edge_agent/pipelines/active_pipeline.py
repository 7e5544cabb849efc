"""`ActivePipeline`: one version of a pipeline that answers, with its log, and all that is worked out once for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from bundle.model_folders import base_of
from columns.columns import Columns
from columns.schema import Field, Schema
from columns.types import ListOf, innermost
from columns.values import object_array
from edge_agent.pipelines.pace import Pace
from edge_agent.pipelines.quick import ShortWay
from runtimes.pipeline import LoadedPipeline

if TYPE_CHECKING:
    from bundle.pipeline import LogPolicy
    from edge_agent.inference_log.spool import Alike

_METADATA = {
    "metadata.last_model": "string",
    "metadata.pipeline_version": "string",
    "metadata.elapsed": "list<int64>",
    "metadata.partition": "string",
    "metadata.dropped": "list<string>",
}
_MODEL_VERSIONS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgepack:model")


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
    def number(self) -> str:
        """The number of this version, empty where it has none."""
        number = self.loaded.spec.number
        return "" if number is None else str(number)

    @cached_property
    def is_program(self) -> bool:
        """Whether it is a predictor, which takes and gives what it likes."""
        workers = [step.worker for step in self.loaded.spec.steps]
        return len(workers) == 1 and workers[0] is not None and workers[0].kind == "cortex"

    @cached_property
    def base(self) -> str:
        """The manifest that was installed: its own, or that of the bundle which was given other models here."""
        return base_of(self.loaded.spec, self.manifest)

    @cached_property
    def own_models(self) -> dict[str, tuple[str, ...]]:
        """The models that a predictor chooses among itself, with their versions, the latest last."""
        worker = self.loaded.spec.steps[0].worker
        told = worker.options.get("models", {}) if worker is not None and self.is_program else {}
        return {name: tuple(sorted(versions, key=int)) for name, versions in told.items()}

    @cached_property
    def absent(self) -> frozenset[tuple[str, str]]:
        """Those of its own models, by name and version, that are not on this disk."""
        worker = self.loaded.spec.steps[0].worker
        told = worker.options.get("models", {}) if worker is not None and self.is_program else {}
        return frozenset(
            (name, number) for name, each in told.items() for number, said in each.items() if "path" not in said
        )

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The models, in the order of the steps."""
        return tuple(
            ServedModel(model.name, model.sha256, str(uuid.uuid5(_MODEL_VERSIONS, model.sha256 or model.name)))
            for step in self.loaded.spec.steps
            for model in step.every_model
        )
