"""What PyTorch, Keras and TensorFlow share: convert in their environment, prove, choose onnx or the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.golden import GoldenRows
from columns.schema import Schema
from packager.artifact import ModelArtifact, file_digest, folder_digest
from packager.checks import Checklist
from packager.conversion import NETWORK
from packager.environments import TORCH, Recipe
from packager.frameworks.networks import Form, check_whole
from packager.frameworks.outcome import MODEL, ROWS
from packager.frameworks.proving import Candidate, Fields, Verdict, declared_fields, prove
from packager.project import StepSource

_TWINS = {"tensorflow-cpu": "tensorflow", "tensorflow": "tensorflow-cpu"}  # one library, built for some machines each
_MARKERS = {
    "tensorflow-cpu": "; platform_machine == 'x86_64'",
    "tensorflow": "; platform_machine != 'x86_64'",
}


@dataclass(frozen=True)
class Network:
    """A framework: its form, the libraries of its worker, and the environment that has them."""

    name: str
    form: Form
    libraries: tuple[str, ...]
    recipe: Recipe = TORCH


@dataclass(frozen=True)
class Upload:
    """A network on this machine: a file, or a folder with `files` by their path in it."""

    path: Path
    files: Mapping[str, Path]

    @classmethod
    def of_file(cls, path: Path) -> Upload:
        """A network that is one file."""
        return cls(path, {path.name: path})

    @property
    def digest(self) -> str:
        """What names the network."""
        return folder_digest(dict(self.files)) if self.path.is_dir() else file_digest(self.path)


def inspect_network(
    kind: Network, source: StepSource, checklist: Checklist, cache: Path, upload: Upload | None = None
) -> ModelArtifact:
    """Inspect, convert and prove a network, each thing as a named check; the step's own file where no `upload` is
    given. Raises BadInput when a check fails.
    """
    if upload is None:
        upload = Upload.of_file(source.model)
        with checklist.check("model.files") as found:
            found.append(check_whole(source.model))
        checklist.require()
    declared: Fields | None = None
    with checklist.check("model.schema") as found:
        declared = declared_fields(source, kind.name)
        found.append("given" if declared[0] or declared[1] else "taken from the model")
    checklist.require()
    assert declared is not None  # noqa: S101 - the check has passed
    candidate = Candidate(upload.path, kind.form, upload.digest, kind.recipe, NETWORK)
    return _artifact(kind, source, upload, prove(source, candidate, declared, checklist, cache))


def _artifact(kind: Network, source: StepSource, upload: Upload, verdict: Verdict) -> ModelArtifact:
    outcome, folder = verdict.outcome, verdict.folder
    inputs, outputs = Schema.parse(outcome.input), Schema.parse(outcome.output)
    golden = GoldenRows.decode((folder / ROWS).read_bytes(), inputs, outputs)
    place, summary = f"models/{source.name}", str(outcome.parity["original"])
    if outcome.is_native:
        path, file = f"{place}/{MODEL}", folder / MODEL
        return ModelArtifact(
            source, kind.name, inputs, outputs, {path: file}, path, file_digest(file), summary,
            golden=golden, parity=outcome.parity,
        )  # fmt: skip
    return ModelArtifact(
        source=source,
        framework=kind.name,
        input=inputs,
        output=outputs,
        files={f"{place}/{name}": file for name, file in upload.files.items()},
        model=place if upload.path.is_dir() else f"{place}/{upload.path.name}",
        digest=upload.digest,
        summary=summary,
        kind="network",
        requirements=requirements_of(kind, verdict.environment.kept.packages),
        options={"format": kind.form},
        reason=outcome.reason,
        golden=golden,
        parity=outcome.parity,
    )


def requirements_of(kind: Network, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Exact pins of what the worker imports: the versions that gave the reference answers. What only another machine's
    environment has is pinned like its twin here.
    """
    pins = []
    for name in sorted({"numpy", *kind.libraries}):
        version = str(found.get(name) or found[_TWINS[name]]).partition("+")[0]
        pins.append(f"{name}=={version}{_MARKERS.get(name, '')}")
    return tuple(pins)
