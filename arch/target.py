"""`Target`: the one key by which builds, bundles and devices are matched."""

from __future__ import annotations

import platform as host
from dataclasses import dataclass

from edgepack.errors import BadInput

ARCHITECTURES = ("x86", "arm")
ACCELERATORS = ("none",)

_PLATFORMS = {"x86": ("amd64", None), "arm": ("arm64", "v8")}
_MACHINES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}


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
        arch, _, accel = text.partition("/")
        target = cls(arch, accel or "none")
        if target.arch not in ARCHITECTURES or target.accel not in ACCELERATORS:
            known = ", ".join(str(each) for each in every_target())
            raise BadInput(f"target '{text}' does not exist: choose one of {known}")
        return target

    @property
    def platform(self) -> Platform:
        """The OCI platform that images for this target carry."""
        return Platform(*_PLATFORMS[self.arch])

    def __str__(self) -> str:
        return f"{self.arch}/{self.accel}"


def every_target() -> tuple[Target, ...]:
    """All legal targets, in the order in which they are listed to users."""
    return tuple(Target(arch, accel) for arch in ARCHITECTURES for accel in ACCELERATORS)


def host_target() -> Target:
    """The plain target of the machine this runs on. Raises BadInput on a machine edgepack has no target for."""
    machine = host.machine().lower()
    if machine not in _MACHINES:
        raise BadInput(f"this machine is '{machine}': edgepack runs on x86_64 and aarch64")
    return Target(_MACHINES[machine])
