"""MLflow: a model folder or zip. Its flavour is packaged natively where the gate proves it, else pyfunc in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from columns.schema import Schema
from edgepack.errors import BadInput
from packager.archives import open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.dialects.mlflow_example import example_rows
from packager.dialects.mlflow_folder import PYFUNC, MlflowModel, read_model
from packager.dialects.mlflow_native import NotNative, inspect_native
from packager.dialects.mlflow_requirements import read_asked
from packager.dialects.mlflow_signature import Side
from packager.environments.interpreters import own_minor
from packager.frameworks.proving import declared_fields
from packager.project import StepSource

FRAMEWORK = "mlflow"
_JAVA = ("spark", "mleap", "h2o", "johnsnowlabs")  # flavours whose models run in a Java machine


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a model folder or zip, each thing as a named check. Raises BadInput when one of them fails."""
    model: MlflowModel | None = None
    with checklist.check("model.files") as told:
        model = read_model(open_tree(source.model, cache))
        _check_possible(model)
        told.append(_told(model))
    checklist.require()
    assert model is not None  # noqa: S101 - the check has passed
    try:
        return replace(inspect_native(model, source, root, checklist, cache), framework=FRAMEWORK)
    except NotNative as why:
        return _as_pyfunc(model, source, checklist, why.reason)


def _check_possible(model: MlflowModel) -> None:
    java = next((name for name in model.flavors if name in _JAVA), None)
    if java is not None:
        raise BadInput(
            f"'{model.tree.name}' is of flavour '{java}', which runs in a Java machine: export it to ONNX, or train it "
            "with a library that needs none, and log that"
        )


def _told(model: MlflowModel) -> str:
    saved = f", saved by mlflow {model.version}" if model.version else ""
    python = f" and Python {model.python}" if model.python else ""
    return f"flavours {', '.join(sorted(model.flavors))}{saved}{python}, {len(model.tree.files)} files"


def _as_pyfunc(model: MlflowModel, source: StepSource, checklist: Checklist, why: str) -> ModelArtifact:
    """A step that loads the folder with mlflow in its worker."""
    fields: tuple[Schema, Schema] | None = None
    asked: list[str] = []
    with checklist.check("model.code") as told:
        if model.pyfunc is None:
            raise BadInput(f"'{model.tree.name}' has no flavour '{PYFUNC}', and {why}: save it with mlflow again")
        told.append(f"{model.pyfunc.get('loader_module')}: {why}")
    with checklist.check("model.schema") as told:
        fields = _fields(model, source)
        told.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    with checklist.check("model.requirements") as told:
        asked = model.requirements()
        told.append(", ".join([*asked, *_other_python(model)]))
    checklist.require()
    assert fields is not None  # noqa: S101 - the check has passed
    for line in _other_python(model):
        checklist.notice(f"'{model.tree.name}' was {line}")
    if unbounded := read_asked(model.tree).unbounded(asked):
        checklist.notice(unbounded)
    return ModelArtifact.in_worker(
        source,
        "mlflow",
        FRAMEWORK,
        fields,
        model.tree.files,
        summary=f"pyfunc, {_told(model)}",
        requirements=tuple(asked),
        options=_options(model, *fields),
        reason=f"{why}: it runs as pyfunc in a worker",
        golden=example_rows(model, fields[0]) if source.golden is None or source.golden.rows is None else None,
    )


def _fields(model: MlflowModel, source: StepSource) -> tuple[Schema, Schema]:
    """The project's fields, else the signature's. Raises BadInput where neither says a side."""
    declared = declared_fields(source, FRAMEWORK)
    signature = model.signature
    found = []
    for side, given, said in (("input", declared[0], signature.input), ("output", declared[1], signature.output)):
        if given is None and said is None:
            raise BadInput(
                f"'{model.tree.name}' has no signature for its {side}{f' ({model.untyped})' if model.untyped else ''}: "
                f"give [steps.{side}], or log the model with infer_signature(inputs, outputs)",
                field=f"steps.{side}",
            )
        params = signature.params if side == "input" and given is None else {}
        found.append(given or Schema.parse({**(said.fields if said else {}), **params}))
    return found[0], found[1]


def _options(model: MlflowModel, inputs: Schema, outputs: Schema) -> dict[str, Any]:
    """What the worker is told: how fields become what `predict` takes, and its answer fields."""
    taken, given = model.signature.input, model.signature.output
    options: dict[str, Any] = {"params": [name for name in model.signature.params if name in inputs]}
    options |= _named("columns", taken, [name for name in inputs.names if name not in model.signature.params])
    options |= _named("answers", given, list(outputs.names))
    if taken is not None and taken.is_tensors:
        options |= {"tensors": True, **({"whole": True} if taken.is_whole else {})}
    elif taken is None:
        options["tensors"] = all("list<" in field.text for field in inputs if field.name not in options["params"])
    return options


def _named(option: str, side: Side | None, fields: list[str]) -> Mapping[str, Any]:
    """MLflow's own names of a side's fields, where they are the signature's."""
    if side is None or list(side.fields) != fields:
        return {}
    return {option: list(side.names)}


def _other_python(model: MlflowModel) -> list[str]:
    """That code was pickled by another Python than it will run in, which not all of it survives."""
    if model.python is None or model.python == own_minor():
        return []
    return [f"saved by Python {model.python}; here and in its image it runs in the Python of the target"]
