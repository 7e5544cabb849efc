"""Whether first axes are rows, where a model's file leaves that open: the model itself is asked.

Rows in, rows out is what most models do. One that gives back something else for several rows, and answers when each
of its tensors is one row, is packaged so; any tensor may then still be sent through the Open Inference Protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from packager.artifact import ModelArtifact


def as_read(
    model: ModelArtifact, answers: Callable[[ModelArtifact], bool], notice: Callable[[str], None]
) -> ModelArtifact:
    """The model with the fields that it answers by; `answers` asks it rows made for them, in a child."""
    if model.whole is None or answers(model):
        return model
    inputs, outputs = model.whole
    whole = replace(model, input=inputs, output=outputs)
    if not answers(whole):
        return model
    notice(f"model '{model.source.name}' does not give a row for each row: each of its tensors is one row")
    return whole
