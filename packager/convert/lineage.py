"""What an artefact says of its making: the libraries at hand, its hyper-parameters, and what training left in it."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any, Dict

import numpy as np

_LIBRARIES = ("scikit-learn", "xgboost-cpu", "lightgbm", "skl2onnx", "onnxmltools", "onnx", "numpy", "pandas", "skops")


# What fitting leaves in an estimator: scikit-learn's names end in an underscore, others are XGBoost's and LightGBM's.
_LEFT = (
    "n_features_in_",
    "feature_names_in_",
    "classes_",
    "n_outputs_",
    "n_iter_",
    "best_params_",
    "best_score_",
    "best_iteration_",
    "best_iteration",
    "best_score",
)
_BOOSTER = ("attributes", "num_boosted_rounds", "num_trees", "num_features", "num_feature")
_MOST = 100  # names and classes of one entry


def versions() -> Dict[str, str]:
    """The interpreter and those of the libraries that are here."""
    found = {"python": "%d.%d.%d" % sys.version_info[:3]}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def parameters(model: Any) -> Dict[str, Any]:
    """Hyper-parameters that are plain values; of the estimator and of those inside it."""
    try:
        found = model.get_params(deep=True)
    except Exception:  # a booster has none of these
        found = dict(getattr(model, "params", None) or {})
        if hasattr(model, "save_config"):
            objective = json.loads(model.save_config())["learner"]["objective"]
            found["objective"] = objective.get("name")
    plain = (str, int, float, bool, type(None))
    named = {key: value for key, value in sorted(found.items()) if isinstance(value, plain)}
    return {key: value for key, value in named.items() if not isinstance(value, float) or np.isfinite(value)}


def training(model: Any) -> Dict[str, Any]:
    """What training left in the model, as plain values; of a pipeline, what its last step has."""
    last = model.steps[-1][1] if isinstance(getattr(model, "steps", None), list) and model.steps else model
    found = {name: _read(last, name) for name in _LEFT}
    boosters = [_read(last, "get_booster", call=True), _read(last, "booster_"), last]
    booster = next(each for each in boosters if each is not None)
    found.update({name: _read(booster, name, call=True) for name in _BOOSTER})
    plain = {name.rstrip("_"): _plain(value) for name, value in found.items()}
    return {name: value for name, value in plain.items() if value not in (None, [], {})}


def _read(owner: Any, name: str, call: bool = False) -> Any:
    """A value that may not be there; libraries raise errors of many kinds for what was never fitted."""
    try:
        found = getattr(owner, name)
        return found() if call else found
    except Exception:
        return None


def _plain(value: Any) -> Any:
    """A value that JSON can hold; None for what is no number, text or list of them."""
    if isinstance(value, np.ndarray) and value.ndim < 2:
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value[:_MOST]]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in list(value.items())[:_MOST]}
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (str, int, bool)) else None
