"""Does a pipeline fit this machine? Pure rules on its spec and the machine's facts, asked before its files are pulled.

What runs slowly fits; what cannot run does not.
"""

from __future__ import annotations

from arch.facts import Facts
from bundle.pipeline import PipelineSpec, Resources, parse_bytes

_CONFINING = ("landlock", "seccomp")  # what a kernel may lack of a sandbox


def objections(spec: PipelineSpec, size_bytes: int, facts: Facts) -> list[str]:
    """Say why a pipeline whose files take so many bytes cannot run on a machine; nothing where it can."""
    return [*_of_memory(spec.resources, size_bytes, facts.memory_bytes), *_of_accelerator(spec, facts)]


def sandbox_objection(spec: PipelineSpec, level: str, *, required: bool) -> str | None:
    """Say why users' code may not run here: what `level`, as `runtimes.sandbox` tells it, lacks of what is required."""
    if not required or not spec.python_models:
        return None
    missing = [part for part in _CONFINING if part not in level]
    if not missing:
        return None
    steps = ", ".join(f"'{step.name}'" for step in spec.python_models)
    return (
        f"its python steps ({steps}) need {' and '.join(missing)}, which this kernel lacks (sandbox {level}): update "
        "the kernel, or start the agent with EDGEPACK_SANDBOX=best"
    )


def _of_memory(asked: Resources, size_bytes: int, memory_bytes: int | None) -> list[str]:
    if memory_bytes is None:
        return []
    found = []
    if size_bytes > memory_bytes:
        found.append(f"its files take {size_bytes} bytes, this device has {memory_bytes} of memory")
    # the default is a guess of ours: only what somebody wrote is a demand
    if asked.memory != Resources().memory and parse_bytes(asked.memory) > memory_bytes:
        found.append(f"[resources] memory is {asked.memory}, this device has {memory_bytes} bytes")
    return found


def _of_accelerator(spec: PipelineSpec, facts: Facts) -> list[str]:
    devices = len(facts.nvidia.devices) if facts.nvidia else 0
    if spec.resources.gpus and not devices:
        return [f"[resources] gpus is {spec.resources.gpus}, and no NVIDIA device is here: is the container given one?"]
    return []
