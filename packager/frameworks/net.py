"""What PyTorch, Keras and TensorFlow share: convert in their environment, prove, choose onnx or the worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.golden import GoldenRows
from columns.schema import Schema
from edgepack.errors import BadInput
from packager import gate
from packager.artifact import ModelArtifact, file_digest, folder_digest
from packager.checks import Checklist
from packager.conversion import NETWORK, convert
from packager.environments import TORCH, Environment, Recipe, ready
from packager.frameworks.networks import Form
from packager.frameworks.outcome import MODEL, ROWS, Asked, Outcome, Proven, kept_outcome
from packager.project import GoldenSource, StepSource
from packager.synthetic import user_rows

_TRIAL_S = 120.0
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
    upload = upload or Upload.of_file(source.model)
    declared: tuple[Schema | None, Schema | None] | None = None
    environment: Environment | None = None
    with checklist.check("model.schema") as found:
        declared = _declared(source, kind)
        found.append("given" if declared[0] or declared[1] else "taken from the model")
    checklist.require()
    with checklist.check("model.environment") as found:
        environment = ready(
            kind.recipe, cache, os.environ, notice=checklist.notice, progress=checklist.progress, wheels=source.wheels
        )
        found.append(f"'{environment.kept.title}', Python {environment.kept.python}")
    checklist.require()
    assert declared is not None and environment is not None  # noqa: S101 - the checks have passed
    folder, outcome = None, None
    with checklist.check("model.converts") as found:
        folder, outcome = _converted(kind, source, upload, environment, declared, cache)
        found.append(f"runtime {'onnx' if outcome.is_native else 'python'}")
        found += [outcome.reason] if outcome.reason else []
    checklist.require()
    assert folder is not None and outcome is not None  # noqa: S101 - as above
    return _artifact(kind, source, upload, environment, folder, outcome)


def _declared(source: StepSource, kind: Network) -> tuple[Schema | None, Schema | None]:
    if source.tensor_fields:
        raise BadInput(
            f"step '{source.name}' has tensor_fields: framework '{kind.name}' names its fields in [steps.input]",
            field="steps.tensor_fields",
        )
    return (
        None if source.input is None else Schema.parse(source.input),
        None if source.output is None else Schema.parse(source.output),
    )


def _converted(
    kind: Network,
    source: StepSource,
    upload: Upload,
    environment: Environment,
    declared: tuple[Schema | None, Schema | None],
    cache: Path,
) -> tuple[Path, Outcome]:
    golden = source.golden or GoldenSource(None, Path())
    rows = user_rows(golden, *declared)

    def prove(folder: Path) -> Proven:
        found = convert(
            upload.path,
            kind.form,
            environment,
            folder,
            inputs=declared[0],
            outputs=declared[1],
            rows=rows,
            program=NETWORK,
        )
        return Proven(found, gate.choose(found.attempts, golden.tolerance, _TRIAL_S))

    asked = Asked(upload.digest, environment, declared, rows, golden.tolerance)
    return kept_outcome(source.model.name, asked, cache, prove)


def _artifact(
    kind: Network, source: StepSource, upload: Upload, environment: Environment, folder: Path, outcome: Outcome
) -> ModelArtifact:
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
        requirements=_requirements(kind, environment.kept.packages),
        options={"format": kind.form},
        reason=outcome.reason,
        golden=golden,
        parity=outcome.parity,
    )


def _requirements(kind: Network, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Exact pins of what the worker imports: the versions that gave the reference answers. What only another machine's
    environment has is pinned like its twin here.
    """
    pins = []
    for name in sorted({"numpy", *kind.libraries}):
        version = str(found.get(name) or found[_TWINS[name]]).partition("+")[0]
        pins.append(f"{name}=={version}{_MARKERS.get(name, '')}")
    return tuple(pins)
