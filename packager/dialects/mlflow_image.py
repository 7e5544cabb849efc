"""`mlflow-image`: a container that answers `/invocations`, named by digest; the project says its fields."""

from __future__ import annotations

import hashlib
from pathlib import Path

from columns.schema import Schema
from durable.files import write_atomically
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact, file_digest
from packager.checks import Checklist
from packager.frameworks.code_model import schemas
from packager.project import MLFLOW_IMAGE, StepSource

FILE = "image.txt"
REASON = "a container of the user's own answers"
_FOLDER = "image-names"


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a step that a container answers. Raises BadInput without both of its schemas: a container says none."""
    assert source.image is not None  # noqa: S101 - the project gives no other step this framework
    fields: tuple[Schema, Schema] | None = None
    with checklist.check("model.schema") as found:
        if source.input is None or source.output is None:
            lacking = "input" if source.input is None else "output"
            raise BadInput(
                f"step '{source.name}' has no [steps.{lacking}]: a container does not say its fields",
                field=f"steps.{lacking}",
            )
        fields = schemas(source, MLFLOW_IMAGE)
        found.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    checklist.require()
    assert fields is not None  # noqa: S101 - the check has passed
    path, file = f"models/{source.name}/{FILE}", _kept(source.image, cache)
    return ModelArtifact(
        source=source,
        framework=MLFLOW_IMAGE,
        input=fields[0],
        output=fields[1],
        files={path: file},
        model=path,
        digest=file_digest(file),
        summary=source.image,
        native="container",
        reason=REASON,
    )


def _kept(image: str, cache: Path) -> Path:
    """A file with the image's name: what stands for the model in a bundle."""
    path = cache / _FOLDER / hashlib.sha256(image.encode()).hexdigest()[:32] / FILE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{image}\n".encode())
    return path
