"""Trees of a fitted model as parallel lists, and where they split: there answers change from one float to the next."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

import numpy as np

NO_NODE = -1
_ENDLESS = 1e300  # what LightGBM writes for infinity: such a split asks whether a value is missing


class Tree(NamedTuple):
    """Nodes in parallel lists. A leaf has no `left`; `value` is None where a split does not ask for order."""

    left: List[int]
    right: List[int]
    feature: List[int]
    value: List[Any]


class Split(NamedTuple):
    """A threshold, and what leads to it: `(feature, threshold, whether it went left there)` from the root on."""

    feature: int
    value: float
    path: Tuple[Tuple[int, float, bool], ...]


def trees(model: Any) -> Iterator[Tree]:
    """The trees of a model, in the space that they see; none for other models."""
    kind = type(model).__module__.partition(".")[0]
    if kind == "xgboost":
        return _of_xgboost(model)
    if kind == "lightgbm":
        return _of_lightgbm(model)
    return _of_sklearn(model)


def splits(model: Any) -> List[Split]:
    """Every split at a threshold, tree after tree."""
    return [split for tree in trees(model) for split in _splits(tree)]


def has_trees(model: Any) -> bool:
    """Whether a model splits on thresholds."""
    try:
        return any(left != NO_NODE for tree in trees(model) for left in tree.left)
    except Exception:  # a model that cannot be asked has none that could be used
        return False


def booster_json(model: Any) -> Any:
    """The raw JSON of an XGBoost model, estimator or booster."""
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    return json.loads(bytes(booster.save_raw(raw_format="json")))


def categories(model: Any) -> Dict[int, List[int]]:
    """Feature → the categories that splits on it ask for. Only LightGBM's are known here."""
    found: Dict[int, Set[int]] = {}
    if type(model).__module__.partition(".")[0] == "lightgbm":
        for node in (node for root in _roots(model) for node in _nodes(root) if "split_feature" in node):
            if node["decision_type"] == "==":
                values = (int(each) for each in str(node["threshold"]).split("||"))
                found.setdefault(int(node["split_feature"]), set()).update(values)
    return {feature: sorted(values) for feature, values in sorted(found.items())}


def _splits(tree: Tree) -> Iterator[Split]:
    waiting: List[Tuple[int, Tuple[Tuple[int, float, bool], ...]]] = [(0, ())]
    while waiting:
        node, path = waiting.pop()
        if tree.left[node] == NO_NODE:
            continue
        feature, value = int(tree.feature[node]), tree.value[node]
        steps = ((), ())  # type: Tuple[Tuple[Tuple[int, float, bool], ...], ...]
        if value is not None:
            yield Split(feature, float(value), path)
            steps = (((feature, float(value), True),), ((feature, float(value), False),))
        waiting += [(tree.right[node], path + steps[1]), (tree.left[node], path + steps[0])]


def _of_xgboost(model: Any) -> Iterator[Tree]:
    boosted = booster_json(model)["learner"]["gradient_booster"]
    boosted = boosted.get("gbtree", boosted)
    for tree in boosted.get("model", {}).get("trees", ()):
        kinds = tree.get("split_type") or [0] * len(tree["left_children"])
        values = [None if kind else value for kind, value in zip(kinds, tree["split_conditions"])]
        yield Tree(tree["left_children"], tree["right_children"], tree["split_indices"], values)


def _roots(model: Any) -> List[Any]:
    return [tree["tree_structure"] for tree in getattr(model, "booster_", model).dump_model()["tree_info"]]


def _nodes(root: Any) -> List[Any]:
    """The nodes of one of LightGBM's trees, the root first, children after their parents."""
    found = [root]
    for node in found:
        if "split_feature" in node:
            found += [node["left_child"], node["right_child"]]
    return found


def _of_lightgbm(model: Any) -> Iterator[Tree]:
    for root in _roots(model):
        made, following = Tree([], [], [], []), 1
        for node in _nodes(root):
            is_split = "split_feature" in node
            made.left.append(following if is_split else NO_NODE)
            made.right.append(following + 1 if is_split else NO_NODE)
            made.feature.append(int(node["split_feature"]) if is_split else 0)
            is_ordered = is_split and node["decision_type"] == "<=" and abs(node["threshold"]) < _ENDLESS
            made.value.append(node["threshold"] if is_ordered else None)
            following += 2 * is_split
        yield made


def _of_sklearn(model: Any) -> Iterator[Tree]:
    tree = getattr(model, "tree_", None)
    if tree is not None and hasattr(tree, "threshold"):
        # a threshold of infinity asks whether a value is missing
        values = [value if np.isfinite(value) else None for value in tree.threshold.tolist()]
        yield Tree(tree.children_left.tolist(), tree.children_right.tolist(), tree.feature.tolist(), values)
    for predictor in np.ravel(np.asarray(getattr(model, "_predictors", ()), dtype=object)):
        nodes = predictor.nodes
        left = np.where(nodes["is_leaf"], NO_NODE, nodes["left"].astype(np.int64)).tolist()
        values = [None if node["is_categorical"] else float(node["num_threshold"]) for node in nodes]
        yield Tree(left, nodes["right"].astype(np.int64).tolist(), nodes["feature_idx"].tolist(), values)
    for part in _inside(model):
        yield from trees(part)


def _inside(model: Any) -> Iterator[Any]:
    """The fitted estimators that an estimator is made of."""
    for name in ("estimators_", "estimator_", "best_estimator_", "calibrated_classifiers_", "estimator"):
        found = getattr(model, name, None)
        parts = np.ravel(np.asarray(found, dtype=object)) if isinstance(found, (list, np.ndarray)) else [found]
        for part in parts:
            if hasattr(part, "get_params") and part is not model:
                yield part
