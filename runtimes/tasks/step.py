"""`TaskRuntime`: a task of a saved pipeline as a `Runtime`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arch.providers import Choice
from bundle.pipeline import StepSpec
from bundle.task import NETWORK, TOKENIZER, TaskSpec
from columns.schema import Schema
from columns.values import column_from_values
from edgepack.errors import RuntimeFailed
from runtimes.tasks.answering import QuestionAnswering
from runtimes.tasks.classes import FeatureExtraction, ImageClassification, TextClassification
from runtimes.tasks.network import Network
from runtimes.tasks.task import Asked, Row, Task
from runtimes.tasks.text import Texts
from runtimes.tasks.zero_shot import ZeroShotClassification

MOST_PASSES = 64  # forward passes whose tensors are held at once, where a row alone does not ask for more

_OF_TEXT: dict[str, Callable[[TaskSpec, Texts], Task]] = {
    "text-classification": TextClassification,
    "feature-extraction": FeatureExtraction,
    "question-answering": QuestionAnswering,
    "zero-shot-classification": ZeroShotClassification,
}
_OF_PICTURES: dict[str, Callable[[TaskSpec], Task]] = {"image-classification": ImageClassification}


class TaskRuntime:
    """A network with what its task does before and after it, all in this process."""

    def __init__(self, step: StepSpec, task: Task, network: Network) -> None:
        self._task, self._network = task, network
        self._input, self._output = Schema.parse(step.input), Schema.parse(step.output)

    @property
    def input(self) -> Schema:
        """The fields it takes."""
        return self._input

    @property
    def output(self) -> Schema:
        """The fields it gives."""
        return self._output

    @property
    def providers(self) -> Choice:
        """What the network computes on."""
        return self._network.providers

    def infer(self, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Run the task over all rows; see `Runtime.infer`. No answer depends on the rows beside it."""
        given = ({name: _plain(arrays[name][row]) for name in self._input.names} for row in range(rows))
        answers = [answer for some in self._groups(given) for answer in self._answered(some)]
        return {
            field.name: column_from_values(field, [answer[field.name] for answer in answers], json=False)
            for field in self._output
        }

    def _groups(self, rows: Iterator[Row]) -> Iterator[list[Asked]]:
        """What rows ask, of as many at a time as their tensors are borne."""
        group: list[Asked] = []
        for row in rows:
            group.append(self._task.asks(row))
            if sum(len(each.passes) for each in group) >= MOST_PASSES:
                yield group
                group = []
        if group:
            yield group

    def _answered(self, asked: list[Asked]) -> list[dict[str, Any]]:
        found = iter(self._network.run([tensors for each in asked for tensors in each.passes]))
        return [each.answer([next(found) for _ in each.passes]) for each in asked]

    def close(self) -> None:
        """Let go of the network."""
        self._network.close()


def load(path: Path, step: StepSpec) -> TaskRuntime:
    """Load the folder of a step with a task. Raises RuntimeFailed for files that do not load, BadInput where a library
    is not installed.
    """
    if step.task is None:
        raise RuntimeFailed(f"step '{step.name}' says no task")
    spec = step.task
    if spec.name in _OF_PICTURES:
        task = _OF_PICTURES[spec.name](spec)
    else:
        task = _OF_TEXT[spec.name](spec, Texts.load(path / TOKENIZER, spec, step.name))
    return TaskRuntime(step, task, Network.load(path / NETWORK, step, spec))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
