"""Zero-shot classification: a label fits a text as far as the text implies a sentence that is made with the label."""

from __future__ import annotations

from functools import partial
from string import Formatter
from typing import Any

import numpy as np

from bundle.task import TaskSpec
from edgepack.errors import BadInput
from runtimes.tasks.task import Asked, Row, Tensors, given
from runtimes.tasks.text import Texts

_TEMPLATE = "This example is {}."
_PLAIN = (("", "", None), ("0", "", None))  # name, format and conversion of {} and {0}
MOST_LABELS = 1000  # of a text: each is a forward pass
MOST_READ = 1 << 24  # characters that the tokenizer reads for a text, which it reads anew with each label


class ZeroShotClassification:
    """A text's labels out of those that come with it, the best first; one forward pass for each."""

    def __init__(self, spec: TaskSpec, texts: Texts) -> None:
        self._spec, self._texts = spec, texts

    def asks(self, row: Row) -> Asked:
        """The tensors of the text with a sentence for each label; the text, the labels and their scores."""
        labels, template = [str(each) for each in row["candidate_labels"]], given(row, "hypothesis_template")
        template = _TEMPLATE if template is None else str(template)
        if not labels or not row["inputs"]:
            name = "inputs" if labels else "candidate_labels"
            raise BadInput(f"field '{name}' is empty: expected a text and at least one label", field=name)
        _check_size(len(labels), len(row["inputs"]) + len(template))
        passes: list[Tensors] = [
            self._texts.tensors("inputs", row["inputs"], _sentence(template, label)) for label in labels
        ]
        return Asked(passes, partial(self._answer, row, labels))

    def _answer(self, row: Row, labels: list[str], found: list[Tensors]) -> dict[str, Any]:
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


def _check_size(labels: int, characters: int) -> None:
    """Raise BadInput for more labels than are borne, and for more than are with so many characters read for each."""
    most = min(MOST_LABELS, max(1, MOST_READ // characters))
    if labels > most:
        raise BadInput(
            f"field 'candidate_labels' has {labels} labels: expected at most {most} for a text and a template of "
            f"{characters} characters, ask for some of them at a time",
            field="candidate_labels",
        )


def _sentence(template: str, label: str) -> str:
    """The template with the label in it. Raises BadInput for one without exactly one plain place for it: Python's own
    format also takes widths of gigabytes, attributes of what it is given, and a label thousands of times.
    """
    try:
        places = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise _no_place(template) from error
    if len(places) != 1 or places[0] not in _PLAIN:
        raise _no_place(template)
    return template.format(label)


def _no_place(template: str) -> BadInput:
    return BadInput(
        f"field 'hypothesis_template' is '{template[:60]}': expected a sentence with {{}} once, where the label goes",
        field="hypothesis_template",
    )
