"""What Triton's extensions of the Open Inference Protocol tell of a model: its configuration and its statistics.

Source: "Model Configuration Extension" and "Statistics Extension" of the Triton Inference Server's documentation. Only
what is known here is said: members that would be guesses are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.doors.oip_tensors import inputs_of, outputs_of, platform_of
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.serving import Tally

_TYPES = {"BYTES": "TYPE_STRING"}


def configuration(active: ActivePipeline) -> dict[str, Any]:
    """The configuration of a model. `max_batch_size` is 0: the shapes hold every axis, rows among them."""
    on_gpu = any("CPU" not in choice.used[0] for choice in active.loaded.providers.values())
    return {
        "name": active.name,
        "platform": platform_of(active),
        "backend": active.loaded.spec.steps[0].runtime,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [_side(each) for each in inputs_of(active)],
        "output": [_side(each) for each in outputs_of(active)],
        "instance_group": [{"count": active.loaded.replicas, "kind": "KIND_GPU" if on_gpu else "KIND_CPU"}],
    }


def statistics(active: ActivePipeline, tally: Tally | None) -> dict[str, Any]:
    """What was counted since the agent started; nothing where nobody counts."""
    said: dict[str, Any] = {"name": active.name, "version": active.version}
    if tally is not None:
        said |= {
            "inference_count": tally.rows,
            "execution_count": tally.succeeded,
            "inference_stats": {
                "success": {"count": tally.succeeded, "ns": sum(tally.stages_ns.values())},
                "fail": {"count": tally.failed},
                **_computed(tally.succeeded, tally.stages_ns),
            },
        }
    return said


def _computed(count: int, stages_ns: Mapping[str, int]) -> dict[str, Any]:
    named = {"compute_input": "parse", "compute_infer": "steps", "compute_output": "encode"}
    return {name: {"count": count, "ns": stages_ns.get(stage, 0)} for name, stage in named.items()}


def _side(described: dict[str, Any]) -> dict[str, Any]:
    datatype = described["datatype"]
    return {
        "name": described["name"],
        "data_type": _TYPES.get(datatype, f"TYPE_{datatype}"),
        "dims": described["shape"],
    }
