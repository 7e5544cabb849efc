"""Decision thresholds of a fitted model: where an answer changes from one float to the next."""

from __future__ import annotations

import json
from typing import Any, Iterator, List, Tuple

import numpy as np

Threshold = Tuple[int, float]


def thresholds(model: Any) -> List[Threshold]:
    """`(feature, value)` of every split, in the space that the model itself sees; empty for other models."""
    kind = type(model).__module__.partition(".")[0]
    if kind == "xgboost":
        return sorted(set(_of_xgboost(model)))
    if kind == "lightgbm":
        return sorted(set(_of_lightgbm(model)))
    return sorted(set(_of_sklearn(model)))


def has_trees(model: Any) -> bool:
    """Whether a model splits on thresholds."""
    try:
        return bool(thresholds(model))
    except Exception:  # a model that cannot be asked has none that could be used
        return False


def booster_json(model: Any) -> Any:
    """The raw JSON of an XGBoost model, estimator or booster."""
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    return json.loads(bytes(booster.save_raw(raw_format="json")))


def _of_xgboost(model: Any) -> Iterator[Threshold]:
    boosted = booster_json(model)["learner"]["gradient_booster"]
    boosted = boosted.get("gbtree", boosted)
    for tree in boosted.get("model", {}).get("trees", ()):
        for left, feature, value in zip(tree["left_children"], tree["split_indices"], tree["split_conditions"]):
            if left != -1:
                yield int(feature), float(value)


def _of_lightgbm(model: Any) -> Iterator[Threshold]:
    booster = getattr(model, "booster_", model)
    waiting = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "split_feature" in node:
            if node["decision_type"] == "<=":
                yield int(node["split_feature"]), float(node["threshold"])
            waiting += [node["left_child"], node["right_child"]]


def _of_sklearn(model: Any) -> Iterator[Threshold]:
    tree = getattr(model, "tree_", None)
    if tree is not None and hasattr(tree, "threshold"):
        for feature, value in zip(tree.feature, tree.threshold):
            if feature >= 0:
                yield int(feature), float(value)
    for predictor in np.ravel(np.asarray(getattr(model, "_predictors", ()), dtype=object)):
        for node in predictor.nodes:
            if not node["is_leaf"] and not node["is_categorical"]:
                yield int(node["feature_idx"]), float(node["num_threshold"])
    for part in _inside(model):
        yield from thresholds(part)


def _inside(model: Any) -> Iterator[Any]:
    """The fitted estimators that an estimator is made of."""
    for name in ("estimators_", "estimator_", "best_estimator_", "calibrated_classifiers_", "estimator"):
        found = getattr(model, name, None)
        parts = np.ravel(np.asarray(found, dtype=object)) if isinstance(found, (list, np.ndarray)) else [found]
        for part in parts:
            if hasattr(part, "get_params") and part is not model:
                yield part
