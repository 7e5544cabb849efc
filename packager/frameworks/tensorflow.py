"""TensorFlow: SavedModels, as a folder or a zip, exported to ONNX; what cannot be exported runs in a worker."""

from __future__ import annotations

from pathlib import Path

from edgepack.errors import BadInput
from packager.archives import open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import TENSORFLOW
from packager.frameworks.net import Network, Upload, inspect_network, requirements_of
from packager.frameworks.networks import SAVED_MODEL
from packager.frameworks.proving import environment_of
from packager.project import StepSource

_KIND = Network("tensorflow", "savedmodel", ("tensorflow-cpu", "tensorflow"), TENSORFLOW)


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect, convert and prove a model, each thing as a named check. Raises BadInput when one of them fails."""
    upload: Upload | None = None
    with checklist.check("model.files") as found:
        upload = _opened(source, cache)
        found.append(f"{len(upload.files)} in the SavedModel")
    checklist.require()
    assert upload is not None  # noqa: S101 - the check has passed
    return inspect_network(_KIND, source, checklist, cache, upload)


def libraries(source: StepSource, checklist: Checklist, cache: Path) -> tuple[str, ...]:
    """Exact pins of what a worker imports that runs a SavedModel as it is. Raises BadInput without an index."""
    environment = environment_of(TENSORFLOW, source, checklist, cache)
    return requirements_of(_KIND, environment.kept.packages)


def _opened(source: StepSource, cache: Path) -> Upload:
    """The SavedModel's own folder: a zip is unpacked, a top folder is entered."""
    tree = open_tree(source.model, cache)
    if SAVED_MODEL not in tree.files:
        raise BadInput(f"'{tree.name}' has no {SAVED_MODEL} at its top: zip the SavedModel's own folder")
    return Upload(tree.files[SAVED_MODEL].parent, tree.files)
