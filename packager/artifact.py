"""`ModelArtifact`: a step's model, inspected: its framework, fields, files and digest. The file is not executed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bundle.pipeline import StepSpec
from columns.schema import Schema
from edgepack.errors import BadInput
from oci.blob import chunks
from oci.digest import Digest
from packager.checks import Checklist
from packager.detect import detect
from packager.frameworks import onnx
from packager.project import StepSource


@dataclass(frozen=True)
class ModelArtifact:
    """What is known of a model. `files` maps paths in the bundle to files on this machine, the model itself among
    them.
    """

    source: StepSource
    framework: str
    input: Schema
    output: Schema
    files: dict[str, Path]
    model: str
    digest: str
    summary: str

    @property
    def spec(self) -> StepSpec:
        """The step as it travels."""
        return StepSpec(
            name=self.source.name,
            model=self.model,
            framework=self.framework,
            runtime="onnx",
            input=self.input.to_dict(),
            output=self.output.to_dict(),
            tensor_fields=list(self.source.tensor_fields),
            batch=self.source.batch,
            sha256=self.digest.removeprefix("sha256:"),
        )


def inspect_step(source: StepSource, root: Path, checklist: Checklist) -> ModelArtifact:
    """Inspect one step's model, each thing as a named check. Raises BadInput when one of them fails."""
    with checklist.check("model.format") as found:
        framework = detect(source.model, source.framework)
        signature = onnx.inspect(source.model)
        found.append(f"'{source.model.name}' is {framework}")
    checklist.require()
    with checklist.check("model.version") as found:
        onnx.check_version(signature)
        found.append(f"{signature.versions}; {onnx.RUNTIME} runs IR {onnx.NEWEST_IR}, opset {onnx.NEWEST_OPSETS['']}")
    with checklist.check("model.files") as found:
        external = onnx.external_files(signature, root)
        found.append(f"{len(external)} beside the model")
    with checklist.check("model.schema") as found:
        fields = onnx.schemas(signature, list(source.tensor_fields), source.input, source.output)
        found.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    checklist.require()
    files = _placed(source, external)
    with source.model.open("rb") as file:
        digest = Digest.of(chunks(file))
    return ModelArtifact(source, framework, *fields, files, next(iter(files)), digest, signature.versions)


def _placed(source: StepSource, external: dict[str, Path]) -> dict[str, Path]:
    """Give every file its place in the bundle: a folder a step, so that no two steps' files meet."""
    folder = f"models/{source.name}"
    if source.model.name in external:
        raise BadInput(f"model '{source.model.name}' names itself as the file of its external data")
    return {
        f"{folder}/{source.model.name}": source.model,
        **{f"{folder}/{name}": path for name, path in external.items()},
    }
