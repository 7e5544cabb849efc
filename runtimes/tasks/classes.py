"""Tasks of one forward pass for each row: text-classification, image-classification, feature-extraction."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bundle.task import TaskSpec
from runtimes.tasks.picture import tensor_of
from runtimes.tasks.scores import ranked, scored
from runtimes.tasks.task import Asked, Row, Tensors, given
from runtimes.tasks.text import Texts

_PICTURE_LABELS = 5  # where a request does not say how many


class TextClassification:
    """A text's labels, the best first: one, or as many as the request says."""

    def __init__(self, spec: TaskSpec, texts: Texts) -> None:
        self._spec, self._texts = spec, texts

    def asks(self, row: Row) -> Asked:
        """The tensors of the text; labels and scores side by side."""
        return Asked([self._texts.tensors("inputs", row["inputs"])], partial(self._answer, row))

    def _answer(self, row: Row, found: list[Tensors]) -> dict[str, Any]:
        (logits,) = found[0].values()
        function = given(row, "function_to_apply")
        scores = scored(logits, self._spec.scores if function is None else str(function).lower())
        count = given(row, "top_k")
        if count is None:
            best = int(np.argmax(scores))
            return {"label": [self._spec.labels[best]], "score": [float(scores[best])]}
        return _side_by_side(ranked(scores, self._spec.labels)[: int(count)])


class ImageClassification:
    """A picture's labels, the best first."""

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        (self._tensor,) = spec.takes

    def asks(self, row: Row) -> Asked:
        """The tensor of the picture; labels and scores side by side."""
        tensors = {self._tensor: tensor_of(row["inputs"], "inputs", self._spec.picture)}
        return Asked([tensors], partial(self._answer, row))

    def _answer(self, row: Row, found: list[Tensors]) -> dict[str, Any]:
        (logits,) = found[0].values()
        count = given(row, "top_k")
        count = min(_PICTURE_LABELS if count is None else int(count), len(self._spec.labels))
        return _side_by_side(ranked(scored(logits, self._spec.scores), self._spec.labels)[:count])


class FeatureExtraction:
    """What the network makes of each token of a text."""

    def __init__(self, spec: TaskSpec, texts: Texts) -> None:
        self._texts = texts

    def asks(self, row: Row) -> Asked:
        """The tensors of the text; a list of numbers for each token."""
        return Asked([self._texts.tensors("inputs", row["inputs"])], self._answer)

    def _answer(self, found: list[Tensors]) -> dict[str, Any]:
        (features,) = found[0].values()
        return {"output": features.tolist()}


def _side_by_side(pairs: list[tuple[str, float]]) -> dict[str, Any]:
    return {"label": [label for label, _ in pairs], "score": [score for _, score in pairs]}
