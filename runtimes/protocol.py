"""`Runtime`: what an engine is to the rest; each `runtimes/<engine>.py` has one class of this shape.

A runtime takes and gives the arrays of `columns.Columns`: the first axis is the rows, a field with fixed
dimensions is one array of its dtype, everything else is an object array of Python values. How an engine
maps that to its own tensors is its business alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from bundle.pipeline import StepSpec
from columns.schema import Schema


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


class Loader(Protocol):
    """How an engine opens a model file."""

    def __call__(self, path: Path, step: StepSpec) -> Runtime:
        """Load. Raises RuntimeFailed when the engine refuses the file, BadInput when it is not installed."""
