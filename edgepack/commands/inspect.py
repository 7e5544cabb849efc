"""`edgepack inspect`: what is in a model file, a project, or a tar or layout folder. Code runs in a sandbox alone."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands._source import SOURCE, opened_project

if TYPE_CHECKING:
    from oci.image import Image, Index


@click.command()
@click.argument("source", type=SOURCE, default=Path())
@click.option("--sizes", is_flag=True, help="Of an image: which packages and files its bytes are spent on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, sizes: bool, as_json: bool) -> None:
    """Show the fields of a model or project, or the content of a bundle or image.

    SOURCE is a model file, a folder with an edgepack.toml, an OCI layout folder, or a tar of one.

    \b
    Example:
      edgepack inspect model.onnx
      edgepack inspect dist/wine-line.bundle.oci.tar --json
      edgepack inspect dist/wine-line-arm-none.oci.tar --sizes
    """
    from edgepack.commands._image_sizes import image_sizes, size_lines

    found = image_sizes(source) if sizes else inspected(source)
    if as_json:
        import orjson

        click.echo(orjson.dumps(found))
        return
    for line in size_lines(found) if sizes else _lines(found):
        click.echo(line)


def inspected(source: Path) -> dict[str, Any]:
    """The object that `--json` prints; `kind` is `project`, `bundle` or `image`."""
    index = index_in(source)
    return _project(source) if index is None else _index(index)


def index_in(source: Path) -> Index | None:
    """The index of a layout folder or a tar of one; None for any other source, which is a project."""
    import tarfile

    from edgepack.errors import BadInput
    from oci.layout import Layout
    from oci.tar import read_tar

    if not source.exists():
        raise BadInput(f"no such file: '{source}': expected a model, a project, an OCI layout folder or a tar of one")
    if (source / "oci-layout").is_file():
        return Layout(source).index()
    if source.is_file() and tarfile.is_tarfile(source):
        return read_tar(source)
    return None


def _project(source: Path) -> dict[str, Any]:
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from packager.checks import Checklist
    from packager.inspect import inspect_step

    project = opened_project(source)
    checklist, cache = Checklist(notice=_progress.notice), cache_folder(os.environ)
    steps = [inspect_step(step, project.root, checklist, cache) for step in project.steps]
    return {
        "kind": "project",
        "pipeline": project.name,
        "steps": [
            {
                "name": step.source.name,
                "framework": step.framework,
                "model": step.source.model.name,
                "versions": step.summary,
                "input": step.input.to_dict(),
                "output": step.output.to_dict(),
                "digest": step.digest,
                "optimize": step.source.optimize and asdict(step.source.optimize),
                "size_bytes": sum(file.stat().st_size for file in step.files.values()),
            }
            for step in steps
        ],
        "validations": dict(project.validations),
        "notes": list(project.notes),
    }


def _index(index: Index) -> dict[str, Any]:
    from bundle.bundle import version_of
    from bundle.media import PIPELINE

    if any(image.artifact_type == PIPELINE for image in index.images):
        found = [_bundle(image, index.digest) for image in index.images if image.artifact_type == PIPELINE]
        return {"kind": "bundle", "digest": index.digest, "version": version_of(index.digest), "bundles": found}
    return {"kind": "image", "digest": index.digest, "images": [_image(image) for image in index.images]}


def _bundle(image: Image, index_digest: str) -> dict[str, Any]:
    import msgspec

    from bundle.bundle import Bundle

    bundle = Bundle.from_image(image, index_digest)
    files = {
        path: {"digest": blob.descriptor.digest, "size_bytes": blob.descriptor.size}
        for path, blob in bundle.blobs.items()
    }
    return {
        "pipeline": bundle.name,
        "target": str(bundle.target),
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes,
        "spec": msgspec.to_builtins(bundle.spec),
        "files": files,
    }


def _image(image: Image) -> dict[str, Any]:
    import json

    from bundle.bundle import read_small

    try:
        config = json.loads(read_small(image.config))
    except ValueError:
        config = {}
    ran = config.get("config") if isinstance(config, dict) else None
    return {
        "digest": image.digest,
        "platform": f"{config.get('os', '?')}/{config.get('architecture', '?')}" if isinstance(config, dict) else None,
        "labels": (ran.get("Labels") or {}) if isinstance(ran, dict) else {},
        "layers": [{"digest": each.descriptor.digest, "size_bytes": each.descriptor.size} for each in image.layers],
    }


def _lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    if found["kind"] == "project":
        return _project_lines(found)
    lines = [f"{found['kind']} {found['digest']}"]
    for each in found.get("bundles", ()):
        lines.append(
            f"pipeline '{each['pipeline']}' for {each['target']}: {each['digest']}, {each['size_bytes']} bytes"
        )
        for step in each["spec"]["steps"]:
            lines += [*_field_lines(step), *_quantized_lines(step)]
        lines += [
            f"  {path:40} {file['size_bytes']:>12} bytes  {file['digest']}" for path, file in each["files"].items()
        ]
    for each in found.get("images", ()):
        lines.append(f"{each['platform']}: {each['digest']}")
        lines += [f"  {name} = {value}" for name, value in sorted(each["labels"].items())]
        lines += [f"  layer {layer['digest']} {layer['size_bytes']:>12} bytes" for layer in each["layers"]]
    return lines


def _project_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"pipeline '{found['pipeline']}'"]
    for step in found["steps"]:
        lines.append(
            f"step '{step['name']}': {step['model']}, {step['framework']}, {step['versions']}, "
            f"{step['size_bytes']} bytes"
        )
        lines += _field_lines(step)
        lines += [f"  optimize {name}: {value}" for name, value in (step["optimize"] or {}).items()]
    lines += [f"validation {name}: {expression}" for name, expression in found["validations"].items()]
    return lines + [f"note: {note}" for note in found["notes"]]


def _quantized_lines(step: dict[str, Any]) -> list[str]:
    models = {step["name"]: step, **(step["routing"] or {}).get("models", {})}
    return [f"  {name}: quantized, {each['quantized']}" for name, each in models.items() if each["quantized"]]


def _field_lines(step: dict[str, Any]) -> list[str]:
    sides = (("in", step["input"]), ("out", step["output"]))
    return [f"  {side}.{name}: {type_}" for side, fields in sides for name, type_ in fields.items()]
