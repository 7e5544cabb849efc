"""Zero-shot classification: a label fits a text as far as the text implies a sentence that is made with the label."""

from __future__ import annotations

from string import Formatter
from typing import Any

import numpy as np

from bundle.task import TaskSpec
from edgepack.errors import BadInput
from runtimes.tasks.task import Row, Tensors, given
from runtimes.tasks.text import Texts

_TEMPLATE = "This example is {}."
_PLAIN = (("", "", None), ("0", "", None))  # name, format and conversion of {} and {0}


class ZeroShotClassification:
    """A text's labels out of those that come with it, the best first; one forward pass for each."""

    def __init__(self, spec: TaskSpec, texts: Texts) -> None:
        self._spec, self._texts = spec, texts

    def asks(self, row: Row) -> list[Tensors]:
        """The tensors of the text with a sentence for each label."""
        labels, template = _labels(row), given(row, "hypothesis_template")
        template = _TEMPLATE if template is None else str(template)
        if not labels or not row["inputs"]:
            name = "inputs" if labels else "candidate_labels"
            raise BadInput(f"field '{name}' is empty: expected a text and at least one label", field=name)
        return [self._texts.tensors("inputs", row["inputs"], _sentence(template, label)) for label in labels]

    def answer(self, row: Row, found: list[Tensors]) -> dict[str, Any]:
        """The text, the labels and their scores."""
        labels = _labels(row)
        logits = np.stack([next(iter(each.values())) for each in found])
        implied = self._spec.entailment
        if given(row, "multi_label") or len(labels) == 1:
            denied = -1 if implied == 0 else 0
            parts = np.exp(logits[:, [denied, implied]])
            scores = (parts / parts.sum(-1, keepdims=True))[:, 1]
        else:
            parts = np.exp(logits[:, implied])
            scores = parts / parts.sum(-1, keepdims=True)
        best = list(reversed(scores.argsort()))
        return {
            "sequence": row["inputs"],
            "labels": [labels[at] for at in best],
            "scores": [float(scores[at]) for at in best],
        }


def _labels(row: Row) -> list[str]:
    return [str(each) for each in row["candidate_labels"]]


def _sentence(template: str, label: str) -> str:
    """The template with the label in it. Raises BadInput for one without a plain place for it: Python's own format
    also takes widths of gigabytes, and attributes of what it is given.
    """
    try:
        places = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise _no_place(template) from error
    if not places or any(place not in _PLAIN for place in places):
        raise _no_place(template)
    return template.format(label)


def _no_place(template: str) -> BadInput:
    return BadInput(
        f"field 'hypothesis_template' is '{template[:60]}': expected a sentence with {{}} where the label goes",
        field="hypothesis_template",
    )
