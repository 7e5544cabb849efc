"""A compose file (compose-spec) that runs one image on one machine."""

from __future__ import annotations

from typing import Any

from buildx.emit.service import JOINING, Service
from buildx.emit.yaml import yaml_text


def compose(service: Service) -> str:
    """Write the file: one container, as a data folder has one owner. Its agent has the `replicas`."""
    said: dict[str, Any] = {"image": service.image, "platform": str(service.target.platform)}
    if not service.pulled:
        said["pull_policy"] = "never"  # only this machine has it, by `docker load`
    said |= {
        "restart": "unless-stopped",
        "ports": [f"{service.port}:{service.port}"],
        "volumes": ["persist:/persist"],
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        # nobody looks after the disk of a device: docker itself would keep all that was ever printed
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    if service.health:
        times = {"interval": "30s", "timeout": "5s", "start_period": "30s", "retries": 3}
        said["healthcheck"] = {"test": ["CMD", *service.health], **times}
    if service.runtime:
        said["runtime"] = service.runtime
    if service.devices:
        said["devices"] = [f"{device}:{device}" for device in service.devices]
    said["deploy"] = {"resources": _resources(service)}
    said = _literal(said)
    said["environment"] = {name: f"${{{name}:-}}" for name in JOINING}
    said["environment"] |= {each.variable: f"http://{each.name}:{each.port}" for each in service.sidecars}
    sidecars = {each.name: _literal(_sidecar(service, each.image)) for each in service.sidecars}
    own = next((name for name in (service.name, f"{service.name}-agent") if name not in sidecars), "edgepack-agent")
    return yaml_text({"name": service.name, "services": {own: said, **sidecars}, "volumes": {"persist": {}}})


def _sidecar(service: Service, image: str) -> dict[str, Any]:
    """A container that only the agent speaks to. Its root is not read-only and its user its own: MLflow's need that."""
    return {
        "image": image,
        "platform": str(service.target.platform),
        "restart": "unless-stopped",
        "security_opt": ["no-new-privileges:true"],
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        "deploy": {"resources": {"limits": {"cpus": service.cpus, "memory": service.memory}}},
    }


def _resources(service: Service) -> dict[str, Any]:
    said: dict[str, Any] = {"limits": {"cpus": service.cpus, "memory": service.memory}}
    if service.gpus is not None and not service.runtime:
        card = {"driver": "nvidia", "count": service.gpus or "all", "capabilities": ["gpu"]}
        said["reservations"] = {"devices": [card]}
    return said


def _literal(value: Any) -> Any:
    """compose puts variables in place of `$`; two of them stand for one."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
