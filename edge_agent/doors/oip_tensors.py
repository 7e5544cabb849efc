"""The tensors of a pipeline as the Open Inference Protocol lists them: the engine's own, or its fields as rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from columns.oip_columns import describe
from columns.schema import Schema
from edge_agent.pipelines.active_pipeline import ActivePipeline
from runtimes.protocol import TensorField


def inputs_of(active: ActivePipeline) -> list[dict[str, Any]]:
    """Name, datatype and shape of each input."""
    engine = active.loaded.tensors
    return _side(active.loaded.input, engine.tensor_inputs if engine else None)


def outputs_of(active: ActivePipeline) -> list[dict[str, Any]]:
    """Name, datatype and shape of each output."""
    engine = active.loaded.tensors
    return _side(active.loaded.output, engine.tensor_outputs if engine else None)


def platform_of(active: ActivePipeline) -> str:
    """What runs it, in the protocol's way of naming."""
    steps = active.loaded.spec.steps
    return f"{steps[0].runtime}_{steps[0].runtime}v1" if active.loaded.tensors is not None else "edgepack_pipeline"


def _side(schema: Schema, tensors: Iterable[TensorField] | None) -> list[dict[str, Any]]:
    rows = describe(schema)
    if tensors is None:
        return rows
    return [_described(field, like) for field, like in zip(tensors, rows, strict=True)]


def _described(field: TensorField, like: dict[str, Any]) -> dict[str, Any]:
    shape = like["shape"] if field.shape is None else [-1 if size is None else size for size in field.shape]
    return {"name": field.name, "datatype": field.datatype, "shape": shape}
