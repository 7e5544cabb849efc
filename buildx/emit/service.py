"""`Service`: one image as it is to be run, said once for everything that can run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from arch.target import Target
from buildx.base import USER
from buildx.image import PORT
from bundle.pipeline import PipelineSpec, Resources, address_variable, parse_bytes
from edgepack.errors import BadInput
from oci.blob import verified
from oci.image import Image

_GIB = 1 << 30
# what a device joins its hub with, as far as whoever starts the image has set it
JOINING = ("EDGEPACK_HUB", "EDGEPACK_JOIN_TOKEN", "EDGEPACK_NAME")
_TAKES_VALUE = ("--gpus", "--runtime", "--device")


@dataclass(frozen=True)
class Sidecar:
    """A container that answers for a step: `name` is the step's, `variable` where the agent is told its address."""

    name: str
    image: str
    variable: str
    port: int = 8080  # that MLflow's images listen on


@dataclass(frozen=True)
class Service:
    """What to run, and with what.

    `image` is the name it is started by, `pulled` says that a registry has it. `flags` are those of the target,
    `storage_bytes` what `/persist` should hold, `health` the command by which an engine asks whether it is alive.
    """

    name: str
    image: str
    pulled: bool
    target: Target
    resources: Resources
    flags: tuple[str, ...]
    storage_bytes: int
    health: tuple[str, ...]
    port: int = PORT
    user: int = USER
    sidecars: tuple[Sidecar, ...] = ()

    @property
    def runtime(self) -> str | None:
        """The container runtime that the target needs, if not the usual one."""
        return next(iter(self._values("--runtime")), None)

    @property
    def gpus(self) -> int | None:
        """How many NVIDIA cards it gets: None for no accelerator of that kind, 0 for all there are."""
        if not self._values("--gpus") and self.runtime != "nvidia":
            return None
        return self.resources.gpus

    @property
    def devices(self) -> tuple[str, ...]:
        """Device files that the target needs."""
        return self._values("--device")

    @property
    def memory(self) -> str:
        """The memory limit as docker, podman and compose read it."""
        size = parse_bytes(self.resources.memory)
        return f"{size >> 20}m" if size % (1 << 20) == 0 else f"{size}b"

    @property
    def cpus(self) -> str:
        """The CPU limit, without a needless fraction."""
        return f"{self.resources.cpus:g}"

    def _values(self, flag: str) -> tuple[str, ...]:
        return tuple(value for name, value in zip(self.flags[::2], self.flags[1::2], strict=False) if name == flag)


def service_of(
    image: Image, spec: PipelineSpec, target: Target, flags: tuple[str, ...], name: str, *, pulled: bool
) -> Service:
    """Describe how an image is run. Raises BadInput for a flag of a target file that has no counterpart elsewhere."""
    words = tuple(word for flag in flags for word in flag.partition("=")[::2] if word)
    if len(words) % 2 or any(flag not in _TAKES_VALUE for flag in words[::2]):
        raise BadInput(
            f"the run flags of target {target} are '{' '.join(flags)}': expected only {', '.join(_TAKES_VALUE)}, each "
            "with a value; mend the target's file"
        )
    config: dict[str, Any] = msgspec.json.decode(b"".join(verified(image.config)))["config"]
    storage = parse_bytes(spec.log.max_bytes) + _GIB  # the log, and room for bundles: two versions and their parts
    health = tuple(config.get("Healthcheck", {}).get("Test", [])[1:])
    sidecars = tuple(Sidecar(each.name, str(each.image), address_variable(each.name)) for each in spec.containers)
    return Service(spec.name, name, pulled, target, spec.resources, words, storage, health, sidecars=sidecars)
