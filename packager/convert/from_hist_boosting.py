"""scikit-learn's HistGradientBoosting to ONNX, with thresholds of 64 bits as it compares them.

Semantics: `_predict_one_from_raw_data` in scikit-learn's `_predictor.pyx`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .ensemble import Ensemble
from .fields import Unsuited
from .wide_trees import EXP, PLAIN, SIGMOID, SOFTMAX, WideGraph

_LINKS = {"IdentityLink": PLAIN, "LogLink": EXP, "LogitLink": SIGMOID, "MultinomialLogit": SOFTMAX}


def is_hist_boosting(model: Any) -> bool:
    """Whether it is one of scikit-learn's two estimators, and of a version whose insides are known here."""
    return type(model).__name__.startswith("HistGradientBoosting") and hasattr(getattr(model, "_loss", None), "link")


def converted(model: Any, width: int) -> Any:
    """A model with input `X` of 64 bits and outputs `predictions` and, for a classifier, `probabilities`."""
    if any(tree.nodes["is_categorical"].any() for round_ in model._predictors for tree in round_):
        raise Unsuited("it splits on categories, which this converter does not know")
    if getattr(model, "_preprocessor", None) is not None:
        raise Unsuited("it encodes categories before its trees, which this converter does not know")
    link = type(model._loss.link).__name__
    if link not in _LINKS:
        raise Unsuited("its loss has the link '%s', which this converter does not know" % link[:60])
    ensemble = Ensemble(int(model.n_trees_per_iteration_), wide=True)
    trees = [(target, tree) for round_ in model._predictors for target, tree in enumerate(round_)]
    for number, (target, tree) in enumerate(trees):
        for at, node in enumerate(tree.nodes):
            _add(ensemble, number, at, node, target)
    build = WideGraph(ensemble, width)
    build.sums([float(each) for each in np.ravel(model._baseline_prediction)])
    build.answers(_LINKS[link], getattr(model, "classes_", None))
    return build.model()


def _add(ensemble: Ensemble, tree: int, at: int, node: Any, target: int) -> None:
    if node["is_leaf"]:
        ensemble.leaf(tree, at, target, float(node["value"]))
        return
    ways, gaps = (int(node["left"]), int(node["right"])), bool(node["missing_go_to_left"])
    ensemble.branch(tree, at, "BRANCH_LEQ", int(node["feature_idx"]), float(node["num_threshold"]), ways, gaps)
