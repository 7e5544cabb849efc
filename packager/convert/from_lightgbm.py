"""LightGBM to ONNX from the booster's own description, with thresholds of 64 bits as it compares them.

onnxmltools' converter rounds thresholds to 32 bits and is silently wrong for forests. Semantics: `NumericalDecision`
and `CategoricalDecision` in LightGBM's `include/LightGBM/tree.h`, and its objectives' `ConvertOutput`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Set, Tuple

import numpy as np

from .ensemble import Ensemble
from .fields import Unsuited
from .wide_trees import EXP, PLAIN, SIGMOID, SOFTMAX, WideGraph

_ZERO = float(np.float32(1e-35))  # `kZeroThreshold` in `include/LightGBM/meta.h`
_LINKS = {
    **dict.fromkeys(("binary", "multiclassova", "cross_entropy"), SIGMOID),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), EXP),
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), PLAIN),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), PLAIN),
    "multiclass": SOFTMAX,
}


def converted(model: Any, width: int) -> Any:
    """A model with input `X` of 64 bits and output `predictions`; an estimator that classifies gives `probabilities`
    too.
    """
    told = getattr(model, "booster_", model).dump_model()
    if told.get("pandas_categorical"):
        raise Unsuited("it was fitted with the categories of a DataFrame: fit it with their codes, as numbers")
    objective, settings = _objective(str(told.get("objective", "")))
    if objective not in _LINKS or "sqrt" in settings:
        raise Unsuited("its objective '%s' has no known link" % str(told.get("objective"))[:60])
    trees, groups = told["tree_info"], int(told["num_tree_per_iteration"])
    ensemble = Ensemble(groups, wide=True)
    categories: Set[int] = set()
    # a forest answers with the average of its rounds
    share = groups / max(1, len(trees)) if told.get("average_output") else 1.0
    for number, tree in enumerate(trees):
        _Tree(ensemble, number, number % groups, share, categories).add(tree["tree_structure"])
    build = WideGraph(ensemble, width)
    build.sums([0.0] * groups, categories, float(settings.get("sigmoid", 1.0)))
    build.answers(_LINKS[objective], getattr(model, "classes_", None))
    return build.model()


def _objective(text: str) -> Tuple[str, Dict[str, str]]:
    """`binary sigmoid:1` is a name and settings."""
    name, *words = text.split() or [""]
    return name, {word.partition(":")[0]: word.partition(":")[2] for word in words}


class _Tree:
    """One tree on its way into an ensemble; `share` of each leaf counts."""

    def __init__(self, ensemble: Ensemble, number: int, target: int, share: float, categories: Set[int]) -> None:
        self.ensemble, self.number, self.target, self.share = ensemble, number, target, share
        self.categories, self.count = categories, 0

    def add(self, root: Any) -> None:
        """All nodes from `root` on."""
        waiting = [(root, self._new())]
        while waiting:
            node, at = waiting.pop()
            if "split_feature" in node:
                ways = (self._new(), self._new())
                self._branch(node, at, ways)
                waiting += [(node["left_child"], ways[0]), (node["right_child"], ways[1])]
            elif "leaf_coeff" in node:
                raise Unsuited("its leaves hold linear models, which this converter does not know")
            else:
                self.ensemble.leaf(self.number, at, self.target, float(node["leaf_value"]) * self.share)

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _branch(self, node: Any, at: int, ways: Tuple[int, int]) -> None:
        feature, kind = int(node["split_feature"]), node["missing_type"]
        if node["decision_type"] == "==":
            self.categories.add(feature)
            self._among(feature, [int(each) for each in str(node["threshold"]).split("||")], at, ways)
            return
        if kind == "Zero":
            raise Unsuited("it takes zeros for missing values, which this converter does not know")
        threshold = _told_apart(float(node["threshold"]))
        gaps = bool(node["default_left"]) if kind == "NaN" else threshold >= 0  # without a way of its own NaN is 0
        self.ensemble.branch(self.number, at, "BRANCH_LEQ", feature, threshold, ways, gaps)

    def _among(self, feature: int, values: List[int], at: int, ways: Tuple[int, int]) -> None:
        """A set of categories: one question a category, all with the same node where it is true."""
        for value in values[:-1]:
            following = self._new()
            self.ensemble.branch(self.number, at, "BRANCH_EQ", feature, value, (ways[0], following), False)
            at = following
        self.ensemble.branch(self.number, at, "BRANCH_EQ", feature, values[-1], ways, False)


def _told_apart(threshold: float) -> float:
    """A threshold so near to zero that LightGBM, which takes such numbers for zero, compares zero with it."""
    if not -_ZERO <= threshold <= _ZERO:
        return threshold
    return _ZERO if threshold >= 0 else float(np.nextafter(-_ZERO, -np.inf))
