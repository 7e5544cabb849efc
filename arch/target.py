"""`Target`: the one key by which builds, bundles and devices are matched."""

from __future__ import annotations

import platform as host
import re
from dataclasses import dataclass

from edgepack.errors import BadInput

ARCHITECTURES = ("x86", "arm")
_PAIRS = ("x86/none", "x86/cuda", "x86/openvino", "arm/none", "arm/cuda", "arm/jetson", "arm/aio")
# known by other names in the trade, and why no image is built for them
REFUSED = {
    "rocm": "ONNX Runtime ended its ROCm provider with 1.23, and what follows it, MIGraphX, was not tried here",
    "qaic": "its SDK comes from Qualcomm alone, and no wheel of an ONNX Runtime with its provider is published",
    "power10": "edgepack builds for x86 and arm, and ONNX Runtime publishes no wheels for ppc64le",
    "inferentia": "Neuron runs models that Amazon's own compiler made, and ONNX Runtime has no provider for it",
}

_PLATFORMS = {"x86": ("amd64", None), "arm": ("arm64", "v8")}
_MACHINES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
_ACCEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class Platform:
    """An OCI platform (image-spec, image index, `platform`)."""

    architecture: str
    variant: str | None = None
    os: str = "linux"

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, order=True)
class Target:
    """An architecture and an accelerator, written `arm/jetson`; the accelerator `none` may be left out when parsed."""

    arch: str
    accel: str = "none"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `x86` or `arm/none`. Raises BadInput for a pair that does not exist, with those that do."""
        return choose(text, every_target())

    @classmethod
    def read(cls, text: str) -> Target:
        """Read a target that somebody else chose: any accelerator, because a target file may have named one of its
        own. Raises BadInput for what cannot be a target.
        """
        arch, slash, accel = text.partition("/")
        accel = accel if slash else "none"
        if arch not in ARCHITECTURES or not _ACCEL.fullmatch(accel):
            raise BadInput(f"'{text[:80]}' is not a target: expected x86 or arm, '/' and an accelerator")
        return cls(arch, accel)

    @property
    def platform(self) -> Platform:
        """The OCI platform that images for this target carry."""
        return Platform(*_PLATFORMS[self.arch])

    def __str__(self) -> str:
        return f"{self.arch}/{self.accel}"


def choose(text: str, known: tuple[Target, ...]) -> Target:
    """Find a target among those known. Raises BadInput that lists them, with the reason where there is one."""
    arch, slash, accel = text.partition("/")
    found = Target(arch, accel if slash else "none")
    if found in known:
        return found
    pairs = ", ".join(map(str, known))
    for word in (accel, arch):
        if word in REFUSED:
            raise BadInput(f"target '{text}' is not supported: {REFUSED[word]}; choose one of {pairs}")
    raise BadInput(f"target '{text}' does not exist: choose one of {pairs}")


def every_target() -> tuple[Target, ...]:
    """All targets that edgepack brings, in the order in which they are listed to users."""
    return tuple(Target(*pair.split("/")) for pair in _PAIRS)


def plain_targets() -> tuple[Target, ...]:
    """The targets without an accelerator: what a bundle is made for unless more is asked."""
    return tuple(target for target in every_target() if target.accel == "none")


def host_target() -> Target:
    """The plain target of the machine this runs on. Raises BadInput on a machine edgepack has no target for."""
    machine = host.machine().lower()
    if machine not in _MACHINES:
        raise BadInput(f"this machine is '{machine}': edgepack runs on x86_64 and aarch64")
    return Target(_MACHINES[machine])
