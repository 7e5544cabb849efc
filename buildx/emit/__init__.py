"""What starts an image: lines for docker and podman, and files for compose, quadlet and Kubernetes."""

from __future__ import annotations

from collections.abc import Callable

from buildx.emit.compose import compose
from buildx.emit.k8s import k8s
from buildx.emit.quadlet import quadlet
from buildx.emit.run_lines import run_lines
from buildx.emit.service import Service, service_of

__all__ = ["FORMATS", "Service", "run_lines", "service_of"]

# `--emit` → what ends the file's name, and who writes it
FORMATS: dict[str, tuple[str, Callable[[Service], str]]] = {
    "compose": (".compose.yaml", compose),
    "quadlet": (".container", quadlet),
    "k8s": (".k8s.yaml", k8s),
}
