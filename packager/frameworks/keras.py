"""Keras: `.keras` and `.h5` files, loaded on Keras's torch backend; what cannot be exported runs in a worker."""

from __future__ import annotations

from pathlib import Path

from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.net import Network, inspect_network
from packager.project import StepSource


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check. Raises BadInput when one of them fails."""
    return inspect_network(Network("keras", "keras", ("h5py", "keras", "torch")), source, checklist, cache)
