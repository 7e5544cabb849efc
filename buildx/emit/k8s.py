"""Kubernetes manifests: a Service, and a StatefulSet, for each replica has a log of its own that must outlive it."""

from __future__ import annotations

from typing import Any

from buildx.emit.service import Service, Sidecar
from buildx.emit.yaml import yaml_text
from edgepack.errors import BadInput

_LONGEST = 52  # characters: what a StatefulSet's name may have, for its pods' labels add 11
_PROBES = {
    "startupProbe": ("/readyz", 2, 60),
    "readinessProbe": ("/readyz", 5, 3),
    "livenessProbe": ("/healthz", 10, 3),
}


def k8s(service: Service) -> str:
    """Write both documents. Raises BadInput for a target that needs a device file: a pod gets none by its path; and for
    two containers of one pod, which would have one port.
    """
    if len(service.sidecars) > 1:
        raise BadInput(
            "a pod's containers share their ports: --emit k8s takes one mlflow-image step, give the others a URL"
        )
    if service.devices:
        raise BadInput(
            f"target {service.target} needs device '{service.devices[0]}', which Kubernetes gives to a pod by a device "
            "plugin alone: leave --emit k8s away"
        )
    name = service.name[:_LONGEST].rstrip("-")
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "edgepack"}
    head = {"name": name, "labels": labels}
    select = {"app.kubernetes.io/name": name}
    ports = [{"name": "http", "port": service.port, "targetPort": "http"}]
    network: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": head,
        "spec": {"selector": select, "ports": ports},
    }
    workload: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": head,
        "spec": {
            "serviceName": name,
            "replicas": 1,  # `[resources] replicas` are processes behind the one port of each pod
            "selector": {"matchLabels": select},
            "template": {"metadata": {"labels": labels}, "spec": _pod(service, name)},
            "volumeClaimTemplates": [_claim(service)],
        },
    }
    return "---\n".join(map(yaml_text, (network, workload)))


def _pod(service: Service, name: str) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": service.target.platform.architecture},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": service.user,
            "runAsGroup": service.user,
            "fsGroup": service.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, name), *(_sidecar(service, each) for each in service.sidecars)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if service.runtime:
        pod["runtimeClassName"] = service.runtime
    if service.devices:
        files = [
            {"name": f"device-{number}", "hostPath": {"path": path}} for number, path in enumerate(service.devices)
        ]
        pod["volumes"] += files
    return pod


def _container(service: Service, name: str) -> dict[str, Any]:
    mounts = [{"name": "persist", "mountPath": "/persist"}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    return {
        "name": "agent",
        "image": service.image,
        "imagePullPolicy": "IfNotPresent" if service.pulled else "Never",
        "ports": [{"name": "http", "containerPort": _port(service)}],
        "envFrom": [{"secretRef": {"name": f"{name}-hub", "optional": True}}],
        **({"env": _addresses(service)} if service.sidecars else {}),
        "resources": _resources(service),
        **{key: _probe(*probe) for key, probe in _PROBES.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _port(service: Service) -> int:
    """Where the agent listens in the pod: beside containers that have its port, at another."""
    taken = {sidecar.port for sidecar in service.sidecars}
    return service.port if service.port not in taken else max(taken) + 1


def _addresses(service: Service) -> list[dict[str, str]]:
    """What the agent is told: its own port, and where each container answers."""
    found = [{"name": "EDGEPACK_PORT", "value": str(_port(service))}]
    return [*found, *({"name": s.variable, "value": f"http://127.0.0.1:{s.port}"} for s in service.sidecars)]


def _sidecar(service: Service, sidecar: Sidecar) -> dict[str, Any]:
    """A container beside the agent, in the pod's own network. Its user is its own: MLflow's images are root."""
    limits = {"cpu": service.cpus, "memory": service.resources.memory}
    return {
        "name": sidecar.name,
        "image": sidecar.image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": dict(limits), "limits": limits},
        "securityContext": {"runAsNonRoot": False, "runAsUser": 0, "allowPrivilegeEscalation": False},
    }


def _resources(service: Service) -> dict[str, Any]:
    limits = {"cpu": service.cpus, "memory": service.resources.memory}
    if service.gpus is not None:
        limits["nvidia.com/gpu"] = str(service.gpus or 1)  # a card is asked for by number there
    return {"requests": dict(limits), "limits": limits}


def _probe(path: str, period_s: int, failures: int) -> dict[str, Any]:
    get = {"path": path, "port": "http"}
    return {"httpGet": get, "periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures}


def _claim(service: Service) -> dict[str, Any]:
    request = {"requests": {"storage": f"{-(-service.storage_bytes >> 20)}Mi"}}
    return {
        "metadata": {"name": "persist"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": request},
    }
