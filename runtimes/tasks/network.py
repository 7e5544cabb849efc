"""The network of a task: as many rows at once as have tensors of the same shapes, nothing padded.

Padding would make the answer to a row depend on the rows beside it. So does a quantized network, which has one scale
for all that it is asked together: its rows run one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from arch.providers import Choice
from bundle.pipeline import StepSpec
from bundle.task import TaskSpec
from runtimes.onnx import OnnxRuntime

MOST_AT_ONCE = 16  # rows in one run: more are no quicker and take the more memory

Tensors = Mapping[str, np.ndarray]


class Network:
    """An ONNX model that takes and gives tensors by its own names, of `most` rows in one run."""

    def __init__(self, engine: OnnxRuntime, most: int = MOST_AT_ONCE) -> None:
        self._engine, self._most = engine, most

    @classmethod
    def load(cls, path: Path, step: StepSpec, task: TaskSpec) -> Network:
        """Load the model file. Raises BadInput without onnxruntime, RuntimeFailed when it refuses the file."""
        engine = OnnxRuntime.load(path, StepSpec(step.name, step.model, "onnx", "onnx", task.takes, task.gives))
        return cls(engine, 1 if step.batch == "single" or step.quantized else MOST_AT_ONCE)

    @property
    def providers(self) -> Choice:
        """What it computes on."""
        return self._engine.providers

    def run(self, rows: Sequence[Tensors]) -> list[dict[str, np.ndarray]]:
        """The answer to each row; tensors are those of one row, without an axis for rows."""
        answers: list[dict[str, np.ndarray]] = [{} for _ in rows]
        for together in _alike(rows, self._most):
            stacked = {name: np.stack([rows[at][name] for at in together]) for name in rows[together[0]]}
            found = self._engine.infer_tensors(stacked)
            for place, at in enumerate(together):
                answers[at] = {name: tensor[place] for name, tensor in found.items()}
        return answers

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()


def _alike(rows: Sequence[Tensors], most: int) -> Iterator[list[int]]:
    """Numbers of rows whose tensors have the same shapes, at most so many together."""
    shapes: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, row in enumerate(rows):
        shapes.setdefault(tuple(tensor.shape for tensor in row.values()), []).append(at)
    for same in shapes.values():
        for start in range(0, len(same), most):
            yield same[start : start + most]
