"""The lines that start an image with docker and with podman, printed after a build."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from buildx.emit.service import Service

_HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]  # noqa: S108


def run_lines(service: Service, file: Path | None) -> list[str]:
    """One line for docker, one for podman; a file is loaded first, where no registry has the image. Where containers
    answer for steps, their addresses are taken from the environment.
    """
    return [*_lines("docker", service, file), *_lines("podman", service, file)]


def _lines(program: str, service: Service, file: Path | None) -> Iterator[str]:
    load = f"{program} load -i {shlex.quote(str(file))} && " if file and not service.pulled else ""
    volume = ["--volume", f"{service.name}:/persist", "--publish", f"{service.port}:{service.port}"]
    devices = [word for device in service.devices for word in ("--device", device)]
    addresses = [word for each in service.sidecars for word in ("--env", each.variable)]
    hardened = [*_HARDENED, *_accelerator(program, service), *devices, *addresses]
    command = [program, "run", "--rm", *volume, *hardened, service.image]
    yield load + shlex.join(command)


def _accelerator(program: str, service: Service) -> list[str]:
    """docker's own flags; podman takes NVIDIA cards by their CDI name (Container Device Interface)."""
    if program == "podman":
        return ["--device", "nvidia.com/gpu=all"] if service.gpus is not None else []
    runtime = ["--runtime", service.runtime] if service.runtime else []
    if service.gpus is None or service.runtime:
        return runtime
    return ["--gpus", str(service.gpus or "all")]
