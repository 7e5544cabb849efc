"""`ModelArtifact`: a step's model, inspected: its framework, fields, files and digest. The file is not executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bundle.bundle import folder_sha256
from bundle.golden import GoldenRows
from bundle.pipeline import StepSpec, WorkerKind, WorkerSpec
from bundle.task import TaskSpec
from columns.schema import Schema
from oci.blob import chunks
from oci.digest import Digest
from packager.project import StepSource


@dataclass(frozen=True)
class ModelArtifact:
    """What is known of a model. `files` maps paths in the bundle to files on this machine, the model itself among
    them; `model` is one of these paths, or the folder they lie in.

    A step with a `kind` runs in a worker, from wheels of `requirements`; `worker` is filled in once these are
    resolved.
    """

    source: StepSource
    framework: str
    input: Schema
    output: Schema
    files: dict[str, Path]
    model: str
    digest: str
    summary: str
    native: Literal["onnx", "tflite", "container"] = "onnx"  # the runtime of a step without a `kind`
    task: TaskSpec | None = None  # around the network of a native step
    kind: WorkerKind | None = None
    requirements: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    worker: WorkerSpec | None = None
    golden: GoldenRows | None = None  # rows made for this model, with the original's answers
    whole: tuple[Schema, Schema] | None = None  # its fields where each tensor is one row, if the file leaves that open
    parity: dict[str, Any] | None = None  # how it compared with the original, where it was converted
    number: int | None = None  # of the version, where its folder has one
    python: str | None = None  # the one Python (`3.11`) that can load it, where its files hold byte code
    quantized: Literal["dynamic", "static"] | None = None  # how its weights became integers
    training: dict[str, Any] = field(default_factory=dict)  # what an artefact that is not converted says of its making

    @classmethod
    def in_worker(
        cls, source: StepSource, kind: WorkerKind, framework: str, fields: tuple[Schema, Schema],
        files: Mapping[str, Path], **more: Any,
    ) -> ModelArtifact:  # fmt: skip
        """A folder that a worker runs: `fields` are its input and output, `files` are by their path inside it, and
        `more` is what else is known of it.
        """
        place = f"models/{source.name}"
        inside = {f"{place}/{path}": file for path, file in files.items()}
        return cls(source, framework, *fields, inside, place, folder_digest(files), kind=kind, **more)

    @property
    def spec(self) -> StepSpec:
        """The step as it travels."""
        return StepSpec(
            name=self.source.name,
            model=self.model,
            framework=self.framework,
            runtime="python" if self.kind else self.native,
            input=self.input.to_dict(),
            output=self.output.to_dict(),
            tensor_fields=list(self.source.tensor_fields),
            batch=self.source.batch,
            sha256=self.digest.removeprefix("sha256:"),
            reason=self.reason,
            worker=self.worker,
            task=self.task,
            quantized=self.quantized,
            image=self.source.image,
        )

    def with_worker(self, python: str, pins: tuple[str, ...]) -> ModelArtifact:
        """The same with the environment it runs in. Only for a step that has a `kind`."""
        assert self.kind is not None  # noqa: S101 - the caller asks for steps that have one
        return replace(self, worker=WorkerSpec(self.kind, python, pins, self.options))


def file_digest(path: Path) -> Digest:
    """The digest of a file on this machine."""
    with path.open("rb") as file:
        return Digest.of(chunks(file))


def folder_digest(files: Mapping[str, Path]) -> str:
    """The digest of a model that is a folder, of its files by their path inside it (`bundle.folder_sha256`)."""
    return f"sha256:{folder_sha256({path: str(file_digest(file)) for path, file in files.items()})}"
