"""A systemd unit for podman (podman-systemd.unit(5)): put into /etc/containers/systemd, it starts at boot."""

from __future__ import annotations

import json
from collections.abc import Iterator

from buildx.emit.service import JOINING, Service
from edgepack.errors import BadInput


def quadlet(service: Service) -> str:
    """Write the `.container` file. Raises BadInput for a pipeline with containers of its own: a unit has one."""
    if service.sidecars:
        raise BadInput(
            f"step '{service.sidecars[0].name}' is a container of its own, and a quadlet holds one: emit compose or k8s"
        )
    sections = {
        "Unit": _unit(service),
        "Container": _container(service),
        "Service": _service(service),
        "Install": ["WantedBy=multi-user.target default.target"],
    }
    return "\n".join(line for name, lines in sections.items() for line in (f"[{name}]", *lines, ""))


def _unit(service: Service) -> Iterator[str]:
    yield f"Description=edgepack pipeline {service.name} ({service.target})"
    yield "Wants=network-online.target"
    yield "After=network-online.target"
    yield "StartLimitIntervalSec=0"  # a registry that is away at boot must not end it for good: nobody is there


def _container(service: Service) -> Iterator[str]:
    # a unit's image is named in full; what `podman load` took is in no registry
    yield f"Image={service.image}" if service.pulled else f"Image=docker.io/library/{service.image}\nPull=never"
    yield f"ContainerName={service.name}"
    yield f"PublishPort={service.port}:{service.port}"
    yield f"Volume={service.name}:/persist"
    yield "ReadOnly=true"
    yield "Tmpfs=/tmp"
    yield "DropCapability=all"
    yield "NoNewPrivileges=true"
    if service.gpus is not None:
        yield "AddDevice=nvidia.com/gpu=all"
    yield from (f"AddDevice={device}" for device in service.devices)
    if service.health:
        yield f"HealthCmd={_escaped(json.dumps(['CMD', *service.health]))}"
        yield "HealthInterval=30s"
        yield "HealthTimeout=5s"
        yield "HealthStartPeriod=30s"
        yield "HealthRetries=3"
        yield "HealthOnFailure=kill"  # systemd then starts it again
    yield "HostName=%H"  # what the device is called unless EDGEPACK_NAME says
    yield f"PodmanArgs=--cpus={service.cpus} --memory={service.memory}"
    yield "PodmanArgs=" + " ".join(f"--env={name}" for name in JOINING)


def _service(service: Service) -> Iterator[str]:
    yield "Restart=always"
    yield "RestartSec=10"
    yield "TimeoutStartSec=900"  # the first start may pull the image
    yield f"EnvironmentFile=-/etc/edgepack/{service.name}.env"


def _escaped(text: str) -> str:
    """systemd puts specifiers in place of `%` and variables in place of `$` (systemd.unit(5), systemd.service(5))."""
    return text.replace("%", "%%").replace("$", "$$")
