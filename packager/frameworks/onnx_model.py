"""ONNX uploads: a `.onnx` file, its external data beside it, or a zip of both. Every file keeps its own digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from columns.schema import Schema
from edgepack.errors import BadInput
from packager.archives import is_zip, open_tree
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.frameworks import onnx
from packager.project import StepSource


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a model, each thing as a named check. Raises BadInput when one of them fails."""
    fields: tuple[Schema, Schema] | None = None
    external: dict[str, Path] = {}
    signature: onnx.Signature | None = None
    with checklist.check("model.version") as found:
        source, root = _unzipped(source, root, cache)
        signature = onnx.inspect(source.model)
        onnx.check_version(signature)
        found.append(f"{signature.versions}; {onnx.RUNTIME} runs IR {onnx.NEWEST_IR}, opset {onnx.NEWEST_OPSETS['']}")
    if signature is None:
        checklist.require()
    assert signature is not None  # noqa: S101 - or the line above has raised
    with checklist.check("model.files") as found:
        external = onnx.external_files(signature, root)
        found.append(f"{len(external)} beside the model")
    with checklist.check("model.schema") as found:
        fields = onnx.schemas(signature, list(source.tensor_fields), source.input, source.output)
        found.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    checklist.require()
    assert fields is not None  # noqa: S101 - the check before has passed
    files = _placed(source, external)
    digest = file_digest(source.model)
    made = ModelArtifact(source, "onnx", *fields, files, next(iter(files)), digest, signature.versions)
    is_told = source.input is not None or source.output is not None
    whole = None if is_told else onnx.whole_schemas(signature, list(source.tensor_fields))
    return replace(made, training=signature.training, whole=whole)


def _unzipped(source: StepSource, root: Path, cache: Path) -> tuple[StepSource, Path]:
    """The one model of a zip or folder, and the folder its external data must be in."""
    if not (source.model.is_dir() or is_zip(source.model)):
        return source, root
    tree = open_tree(source.model, cache)
    models = [path for path in tree.files if path.endswith(".onnx")]
    if len(models) != 1:
        said = ", ".join(f"'{path}'" for path in models[:3]) or "none"
        raise BadInput(f"'{tree.name}' has {len(models)} .onnx files ({said}): expected exactly one")
    path = tree.files[models[0]]
    folder = path.parents[models[0].count("/")]
    return replace(source, model=path), folder


def _placed(source: StepSource, external: dict[str, Path]) -> dict[str, Path]:
    """Give every file its place in the bundle: a folder a step, so that no two steps' files meet."""
    folder = f"models/{source.name}"
    if source.model.name in external:
        raise BadInput(f"model '{source.model.name}' names itself as the file of its external data")
    return {
        f"{folder}/{source.model.name}": source.model,
        **{f"{folder}/{name}": path for name, path in external.items()},
    }
