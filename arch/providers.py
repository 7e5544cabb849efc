"""Which of ONNX Runtime's execution providers can be used here, and why another cannot: rules without the engine.

A target says what it wants, in order (`EDGEPACK_PROVIDERS` in an image); the engine says what it was built with; the
machine says what is there. The CPU is always last: a model runs slowly rather than not at all, and the reason is told.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from arch.facts import older
from arch.nvidia import Nvidia, l4t_objection

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer.so.8")


@dataclass(frozen=True)
class Choice:
    """What is used, in order, and what is not: provider → reason."""

    used: tuple[str, ...] = (CPU,)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def without(self, refused: Mapping[str, str]) -> Choice:
        """The same after the engine has refused some."""
        used = tuple(name for name in self.used if name not in refused)
        return Choice(used or (CPU,), {**self.skipped, **refused})


@dataclass(frozen=True)
class Needs:
    """What an engine and an image were built for: the CUDA release, and the L4T release of a Jetson."""

    cuda: str | None = None
    l4t: str | None = None


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


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
