"""`Runtime`: what an engine is to the rest; each `runtimes/<engine>.py` has one class of this shape.

A runtime takes and gives the arrays of `columns.Columns`: the first axis is the rows, a field with fixed
dimensions is one array of its dtype, everything else is an object array of Python values. How an engine
maps that to its own tensors is its business alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from bundle.pipeline import StepSpec
from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import Unreachable

CONTAINER_REQUESTS = 4  # that one container is asked at the same time


class Misfits(Unreachable):
    """Whoever answers for a step is there, and answers what does not fit it: he may be mended while requests come, and
    is no reason to pass a trial.
    """


class RowsRefused(Misfits):
    """He says that he does not take these rows. Rows that he has never answered may be at fault themselves."""


class ModelAbsent(Unreachable):
    """A predictor was asked for a model of its own that is not on this disk. `there` are those that are, as (model,
    version), `used` those of them that it was asked for before, the one longest unused first.
    """

    def __init__(
        self, model: str, version: str, used: Sequence[tuple[str, str]], there: frozenset[tuple[str, str]]
    ) -> None:
        words = f"model '{model}', version {version}, is not on the disk: its predictor's disk_cache_size leaves it out"
        super().__init__(words, retry_after_s=5)
        self.model, self.version, self.used, self.there = model, version, tuple(used), there


class Runtime(Protocol):
    """A loaded model. `infer` may be called by several threads at once."""

    @property
    def input(self) -> Schema:
        """The fields it takes, by the names after `tensor_fields`."""

    @property
    def output(self) -> Schema:
        """The fields it gives."""

    def infer(self, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Run the model once over `rows` rows.

        Takes one array for each input field, rows first. Returns fresh arrays: the caller may keep them.
        Raises BadInput for arrays that do not fit the model; RuntimeFailed if the engine gives up.
        """

    def close(self) -> None:
        """Let go of the engine's memory. `infer` must not be running."""


@dataclass(frozen=True)
class TensorField:
    """An input or output of an engine. `datatype` as in the Open Inference Protocol; None is a free axis, as shape
    any.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...] | None


@runtime_checkable
class TensorRuntime(Protocol):
    """What a native engine offers beside rows: its tensors as they are."""

    @property
    def tensor_inputs(self) -> tuple[TensorField, ...]:
        """The tensors it takes, by the names of its fields."""

    @property
    def tensor_outputs(self) -> tuple[TensorField, ...]:
        """The tensors it gives."""

    def infer_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the model once over tensors of its own shapes; text is an object array of str.

        Raises BadInput for tensors that do not fit the model; RuntimeFailed if the engine gives up.
        """


@runtime_checkable
class ValueRuntime(Protocol):
    """What a step offers that takes one value, JSON or bytes, beside rows of its fields."""

    def infer_value(self, value: Columns) -> Columns:
        """Ask one value; `columns.json_value` says how values are columns.

        Raises RuntimeFailed when the user's code raises or gives what is no JSON.
        """


@runtime_checkable
class BindableRuntime(Protocol):
    """A `TensorRuntime` that can keep buffers for tensors that come again and again."""

    def bind(
        self, tensors: Mapping[str, np.ndarray]
    ) -> Callable[[Sequence[bytes | bytearray | memoryview]], list[bytes]] | None:
        """A quicker way to run tensors of exactly these dtypes and shapes; None where the engine has none for them.

        It takes and gives their bytes, in the order of `tensor_inputs` and `tensor_outputs`, one call at a time, and
        raises RuntimeFailed where the model gives up or answers in another shape.
        """


class Loader(Protocol):
    """How an engine opens a model file."""

    def __call__(self, path: Path, step: StepSpec) -> Runtime:
        """Load. Raises RuntimeFailed when the engine refuses the file, BadInput when it is not installed."""
