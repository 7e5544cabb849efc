"""Scores of a network as a pipeline gives them: in float32, the best first, equals in the order of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepack.errors import BadInput

FUNCTIONS = ("softmax", "sigmoid", "none")


def scored(logits: np.ndarray, function: str) -> np.ndarray:
    """Apply one of `FUNCTIONS` to the logits of one row. Raises BadInput for another name."""
    if function == "softmax":
        shifted = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
        found: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
        return found
    if function == "sigmoid":
        found = 1.0 / (1.0 + np.exp(-logits))
        return found
    if function == "none":
        return logits
    raise BadInput(
        f"field 'function_to_apply' is '{function[:40]}', expected one of {', '.join(FUNCTIONS)}",
        field="function_to_apply",
    )


def ranked(scores: np.ndarray, labels: Sequence[str]) -> list[tuple[str, float]]:
    """Labels with their scores, the best first."""
    pairs = [(labels[at], float(score)) for at, score in enumerate(scores)]
    return sorted(pairs, key=lambda pair: pair[1], reverse=True)
