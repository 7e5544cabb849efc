"""A flavour unwrapped: the file that a library saved inside an MLflow folder, packaged as that library's own.

What answers differently without its wrapper is not unwrapped: an estimator with code beside it, another `predict_fn`,
columns that may be missing, parameters whose defaults it adds. A pickled module of PyTorch is not opened here; whatever
is refused runs as pyfunc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.dialects.mlflow_folder import MlflowModel
from packager.frameworks import keras, lightgbm, networks, onnx_model, pytorch, sklearn, tensorflow, xgboost
from packager.project import StepSource

Inspect = Callable[[StepSource, Path, Checklist, Path], ModelArtifact]

_METHODS = {"predict": "predictions", "predict_proba": "probabilities"}
_ESTIMATORS: Mapping[str, tuple[str, Inspect]] = {
    "sklearn": ("pickled_model", sklearn.inspect_model),
    "xgboost": ("data", xgboost.inspect_model),
    "lightgbm": ("data", lightgbm.inspect_model),
}
_NETWORKS = {
    "pytorch": ("model_data",),
    "keras": ("data", "model_path"),
    "tensorflow": ("saved_model_dir", "data"),
}
_BY_CONTENT: Mapping[str, Inspect] = {
    "pytorch": pytorch.inspect_model,
    "keras": keras.inspect_model,
    "tensorflow": tensorflow.inspect_model,
}
_USUAL: Mapping[str, Any] = {"signature_def_key": "serving_default", "meta_graph_tags": ["serve"]}  # of a SavedModel
_MODEL_CHECKS = ("model.globals", "model.schema", "model.converts", "model.version", "model.files")


@dataclass(frozen=True)
class NotNative(Exception):
    """Why a flavour is not unwrapped, for people."""

    reason: str


def inspect_native(
    model: MlflowModel, source: StepSource, root: Path, checklist: Checklist, cache: Path
) -> ModelArtifact:
    """Inspect the flavour's own file by its own framework. Raises NotNative where that cannot be, BadInput where this
    machine lacks what it takes.
    """
    flavor = model.native
    if flavor is None:
        raise NotNative("code of the user's own")
    inspect, given = _unwrapped(model, flavor, source)
    trial = Checklist(progress=checklist.progress, notice=checklist.notice)
    try:
        made = inspect(given, given.model.parent, trial, cache)
    except BadInput as error:
        failed = next((check for check in trial.checks if not check.passed), None)
        if failed is not None and failed.key not in _MODEL_CHECKS:
            checklist.checks += trial.checks
            raise
        raise NotNative(f"flavour '{flavor}' is not unwrapped: {error}") from error
    checklist.checks += trial.checks
    return replace(made, source=source, summary=f"flavour '{flavor}': {made.summary}")


def _unwrapped(model: MlflowModel, flavor: str, source: StepSource) -> tuple[Inspect, StepSource]:
    """What inspects the flavour's file, and the step as that one wants it."""
    if model.flavors[flavor].get("code"):
        raise NotNative(f"flavour '{flavor}' has code of the user's own beside it")
    if model.signature.params:
        raise NotNative(f"it takes the parameter '{next(iter(model.signature.params))[:40]}'")
    try:
        if flavor in _ESTIMATORS:
            return _estimator(model, flavor, source)
        if flavor == "onnx":
            return onnx_model.inspect_model, replace(source, model=_file(model, flavor, "data"), framework="onnx")
        if flavor in _NETWORKS:
            return _network(model, flavor, source)
    except BadInput as error:
        raise NotNative(f"flavour '{flavor}' is not unwrapped: {error}") from error
    raise NotNative(f"flavour '{flavor}' has no native form here")


def _estimator(model: MlflowModel, flavor: str, source: StepSource) -> tuple[Inspect, StepSource]:
    key, inspect = _ESTIMATORS[flavor]
    path = _file(model, flavor, key)
    if flavor == "xgboost":
        inspect = _xgboost(str(model.flavors[flavor].get("model_class") or ""), inspect)
    method = str((model.pyfunc or {}).get("predict_fn") or "predict")
    if method not in _METHODS:
        raise NotNative(f"its predict_fn is '{method[:40]}'")
    taken, given = model.signature.input, model.signature.output
    if taken is not None and taken.optional and source.input is None:
        raise NotNative(f"its column '{taken.optional[0]}' may be missing")
    return inspect, replace(
        source,
        model=path,
        framework=flavor,
        input=source.input or (dict(taken.fields) if taken else None),
        output=source.output or _answer(given.fields if given else {}, _METHODS[method]),
    )


def _answer(said: Mapping[str, str], name: str) -> dict[str, str] | None:
    """The one output, by the signature's name where that means no other method; None where it says none."""
    if len(said) > 1:
        raise NotNative("it gives several fields")
    free = name == "predictions" and not {"probabilities", "transformed"} & set(said)
    return {own if free else name: type_ for own, type_ in said.items()} or None


def _xgboost(class_: str, plain: Inspect) -> Inspect:
    """A booster that scikit-learn's interface saved answers with classes, and not with their probabilities."""
    name = class_.rpartition(".")[2]
    if name in ("", "Booster"):
        return plain
    if name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"):
        return xgboost.inspect_estimator
    raise NotNative(f"its model_class is '{class_[:60]}'")


def _network(model: MlflowModel, flavor: str, source: StepSource) -> tuple[Inspect, StepSource]:
    """The file or folder of a network, by its content: a Keras model may lie in either of two flavours."""
    for key, usual in _USUAL.items():
        if (said := model.flavors[flavor].get(key)) not in (None, usual):
            raise NotNative(f"its {key} is {said!r:.60}, not {usual!r}")
    place = next((found for key in _NETWORKS[flavor] if (found := model.place(flavor, key))), None)
    if place is None:
        raise BadInput(f"flavour '{flavor}' does not say where its model lies")
    for name in [place] if place in model.tree.files else model.below(place):
        path = model.tree.files[name]
        if name.endswith(networks.SAVED_MODEL):
            return tensorflow.inspect_model, _with_fields(model, "tensorflow", replace(source, model=path.parent))
        found = networks.framework_of(path)
        if found is not None:
            return _BY_CONTENT[found], _with_fields(model, found, replace(source, model=path))
    raise BadInput(f"'{place}' in '{model.tree.name}' has no network that is known")


def _with_fields(model: MlflowModel, framework: str, source: StepSource) -> StepSource:
    """TorchScript does not say its shapes, so the signature's tensors do; the others have fields of their own."""
    taken, given = model.signature.input, model.signature.output
    step = replace(source, framework=framework)
    if framework != "pytorch" or source.input is not None or taken is None or not taken.is_tensors or taken.is_whole:
        return step
    outputs = dict(given.fields) if given is not None and given.is_tensors else None
    return replace(step, input=dict(taken.fields), output=source.output or outputs)


def _file(model: MlflowModel, flavor: str, key: str) -> Path:
    """The one file that a flavour names."""
    place = model.place(flavor, key)
    if place is None or place not in model.tree.files:
        raise BadInput(f"flavour '{flavor}' does not name its file under '{key}'")
    return model.tree.files[place]
