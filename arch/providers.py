"""Which of ONNX Runtime's execution providers can be used here, and why another cannot: rules without the engine.

A target says what it wants, in order (`EDGEPACK_PROVIDERS` in an image); the engine says what it was built with; the
machine says what is there. The CPU is always last: a model runs slowly rather than not at all, and the reason is told.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from arch.facts import older
from arch.nvidia import Nvidia, l4t_objection

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
_TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer.so.8")
_COUNT = re.compile(r"\(\d+\)$")  # of requests at a time, behind the name of a device
_NAMED_OPERATORS = 5  # of those that a provider leaves to another, in a sentence

Nodes = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Choice:
    """What a model computes on: what is used, in order, and what is not: provider → reason.

    `nodes` says which provider has how many nodes of which operator, where the engine tells; `engine` is its name and
    release, `threads` how many of this process it computes with (0: not known).
    """

    used: tuple[str, ...] = (CPU,)
    skipped: Mapping[str, str] = field(default_factory=dict)
    nodes: Nodes = field(default_factory=dict)
    engine: str = ""
    threads: int = 0

    def without(self, refused: Mapping[str, str]) -> Choice:
        """The same after the engine has refused some."""
        used = tuple(name for name in self.used if name not in refused)
        return replace(self, used=used or (CPU,), skipped={**self.skipped, **refused})

    def placed(self, nodes: Nodes) -> Choice:
        """The same after the engine has said where the nodes of a model went: one that took none is not used.

        Without any it is not known; then nothing changes.
        """
        idle = [name for name in self.used if name != CPU and not nodes.get(name)] if nodes else []
        left = {name: f"it takes none of this model's nodes ({_listed(nodes)})" for name in idle}
        return replace(self.without(left), nodes=nodes)

    def __str__(self) -> str:
        """For people: `OpenVINOExecutionProvider (5 of 7 nodes, others: Scaler 1, Normalizer 1), 2 threads`."""
        first = self.used[0]
        others = {name: kinds for name, kinds in self.nodes.items() if name != first}
        mine, rest = (
            sum(sum(kinds.values()) for kinds in each) for each in ([self.nodes.get(first, {})], others.values())
        )
        part = f" ({mine} of {mine + rest} nodes, others: {_listed(others)})" if rest else ""
        threads = f", {self.threads} thread{'' if self.threads == 1 else 's'}" if self.threads else ""
        return f"{first}{part}{threads}{f', {self.engine}' if self.engine else ''}"


@dataclass(frozen=True)
class Needs:
    """What an engine and an image were built for: the CUDA release, and the L4T release of a Jetson. `openvino` is the
    kind of device that OpenVINO is asked to use, as its option `device_type` says it, and `found` those it finds; None
    where it was not asked.
    """

    cuda: str | None = None
    l4t: str | None = None
    openvino: str = ""
    found: tuple[str, ...] | None = None


def wanted_providers(text: str | None) -> tuple[str, ...]:
    """What `EDGEPACK_PROVIDERS` says: names separated by commas; without it the CPU."""
    return tuple(name for name in (text or "").replace(" ", "").split(",") if name) or (CPU,)


def choose_providers(wanted: Iterable[str], available: Iterable[str], objection: Callable[[str], str | None]) -> Choice:
    """Keep the wanted ones that the engine has and nothing speaks against; the CPU comes last, asked for or not."""
    used: list[str] = []
    skipped: dict[str, str] = {}
    built = set(available)
    for name in wanted:
        reason = None if name in built else "this onnxruntime was built without it"
        reason = reason or objection(name)
        if reason:
            skipped[name] = reason
        elif name not in used:
            used.append(name)
    return Choice((*(name for name in used if name != CPU), CPU), skipped)


def objection(
    name: str, nvidia: Nvidia | None, needs: Needs, can_load: Callable[[str], bool] | None = None
) -> str | None:
    """Why a provider cannot run on a machine; None where nothing speaks against it, as for those we know nothing of."""
    if name == OPENVINO:
        return _openvino_objection(needs)
    if name not in (CUDA, TENSORRT):
        return None
    if nvidia is None or not nvidia.devices:
        return "no NVIDIA device is here: is the container started with --gpus all, on a Jetson with --runtime nvidia?"
    if not nvidia.cuda:
        return "the driver's library libcuda.so.1 is not here: install NVIDIA's container toolkit on the host"
    if needs.cuda and older(nvidia.cuda, needs.cuda.partition(".")[0]):
        return f"the driver speaks CUDA {nvidia.cuda}, this onnxruntime needs {needs.cuda}: update the driver"
    if needs.l4t and (reason := l4t_objection(needs.l4t, nvidia.l4t)):
        return reason
    if name == TENSORRT and not any(map(can_load or _can_load, _TENSORRT_LIBRARIES)):
        return "TensorRT (libnvinfer) is not in this image: use a base that has it"
    return None


def _openvino_objection(needs: Needs) -> str | None:
    """`device_type` names one device, or several behind a colon, all of which must be there: `AUTO:GPU,-CPU`,
    `MULTI:GPU(2),CPU(1)`.
    """
    if needs.found is None:
        return None
    if not needs.found:
        return "OpenVINO finds no device here: its libraries are not whole, install onnxruntime-openvino again"
    asked = [_COUNT.sub("", name) for name in needs.openvino.rpartition(":")[2].split(",")]
    missing = [name for name in asked if not _is_there(name, needs.found)]
    if not missing:
        return None
    return (
        f"OpenVINO finds no {' and no '.join(missing)} here, only {', '.join(sorted(needs.found))}: "
        "is the container given the device, as with --device /dev/dri?"
    )


def _is_there(asked: str, found: Iterable[str]) -> bool:
    """Whether a device is among those found, or needs not be: `AUTO` chooses by itself, `-CPU` is one to leave out.

    `GPU` is any of them, and the only one is found as `GPU` although it may be called `GPU.0` too.
    """
    kind, _, index = asked.partition(".")
    if kind in ("", "AUTO") or kind.startswith("-"):
        return True
    others = [other.partition(".") for other in found]
    return any(kind == other and (not index or not its or index == its) for other, _, its in others)


def _listed(nodes: Nodes) -> str:
    """Operators with their counts, the most frequent first."""
    counts: dict[str, int] = {}
    for kinds in nodes.values():
        for kind, count in kinds.items():
            counts[kind] = counts.get(kind, 0) + count
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    said = [f"{kind} {count}" for kind, count in ranked[:_NAMED_OPERATORS]]
    return ", ".join([*said, *(["…"] if len(ranked) > _NAMED_OPERATORS else [])])


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
