"""XGBoost to ONNX from the booster's own JSON, without another converter: that of onnxmltools is silently wrong for
random forests of several classes, `reg:logistic` and several targets.

One TreeEnsembleRegressor (or a sum in XGBoost's own order for gblinear) gives the margins; the objective's link makes
answers of them. Formats: XGBoost's model schema, "Introduction to Model IO".
"""

from __future__ import annotations

import math
from typing import Any, List, Tuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .ensemble import Ensemble
from .fields import Unsuited
from .graph import IR_VERSION, OPSETS
from .trees import booster_json

_IDENTITY: Tuple[str, ...] = (
    "reg:squarederror",
    "reg:linear",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
)
_IDENTITY += ("reg:quantileerror", "binary:logitraw")
_SIGMOID = ("binary:logistic", "reg:logistic")
_EXP = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
_SOFTMAX = ("multi:softprob", "multi:softmax")


def converted(model: Any, width: int) -> Any:
    """A model with input `X` and outputs `predictions` and, for classifiers, `probabilities`."""
    learner = booster_json(model)["learner"]
    objective = learner["objective"]["name"]
    if objective.startswith("rank:"):
        raise Unsuited(
            "it is a ranker, whose scores mean something only within one query: package it as framework 'custom' (BYOP)"
        )
    parameters = learner["learner_model_param"]
    groups = max(int(parameters.get("num_class") or 0), int(parameters.get("num_target") or 1), 1)
    build = _Graph(width, groups)
    boosted = learner["gradient_booster"]
    base = _margins(objective, parameters["base_score"], groups)
    if boosted["name"] == "gblinear":
        build.linear(boosted["model"]["weights"], base)
    else:
        build.trees(*_kept_trees(model, learner, boosted), base)
    build.link(objective, is_classifier=_is_classifier(model))
    return build.model()


def _is_classifier(model: Any) -> bool:
    return hasattr(model, "predict_proba")


def _margins(objective: str, text: Any, groups: int) -> List[float]:
    """The base score of each group before the link. XGBoost 3 writes a list in brackets, older ones a number."""
    numbers = [float(part) for part in str(text).strip("[]").split(",")]
    if objective in _SIGMOID or objective == "binary:logitraw":
        numbers = [math.log(each / (1 - each)) for each in numbers]
    elif objective in _EXP:
        numbers = [math.log(each) for each in numbers]
    return numbers * groups if len(numbers) == 1 else numbers


def _kept_trees(model: Any, learner: Any, boosted: Any) -> Tuple[List[Any], List[int], List[float]]:
    """Trees, the group of each and its weight. An estimator that stopped early answers with its best rounds only."""
    drops = boosted.get("weight_drop")
    boosted = boosted.get("gbtree", boosted)["model"]
    trees, groups = boosted["trees"], [int(each) for each in boosted["tree_info"]]
    count = len(trees)
    best = learner.get("attributes", {}).get("best_iteration")
    if best is not None and hasattr(model, "get_booster"):
        ends = boosted.get("iteration_indptr")
        if ends is None:
            raise Unsuited("it stopped early and was saved by an XGBoost that does not say which trees count")
        count = int(ends[int(best) + 1])
    weights = [float(each) for each in drops] if drops else [1.0] * len(trees)
    return trees[:count], groups[:count], weights[:count]


class _Graph:
    """The nodes, in order."""

    def __init__(self, width: int, groups: int) -> None:
        self.width, self.groups = width, groups
        self.nodes: List[Any] = []
        self.constants: List[Any] = []
        self.outputs: List[Tuple[str, int]] = []

    def trees(self, trees: List[Any], groups: List[int], weights: List[float], base: List[float]) -> None:
        """One ensemble over all trees; a leaf adds to the target of its tree's group."""
        ensemble = Ensemble(self.groups)
        for number, (tree, group, weight) in enumerate(zip(trees, groups, weights)):
            _check(tree)
            _add(ensemble, number, tree, group, weight)
        self.nodes.append(ensemble.operator("X", "margins", base))

    def linear(self, weights: List[float], base: List[float]) -> None:
        """gblinear: a row of weights a feature, the last row is the bias. A missing value counts as nothing.

        XGBoost adds the features up one by one in 32 bits, from the bias on. Large terms that cancel out keep the
        rounding of that order, so the graph adds in the same order: a matrix product would not.
        """
        table = np.array(weights, dtype=np.float32).reshape(-1, self.groups)
        self._constant("weights", table[None, : self.width])
        self._constant("bias", (table[-1] + np.array(base, dtype=np.float32))[None, None])
        self._constant("nothing", np.array(0, dtype=np.float32))
        self._constant("groups-axis", np.array([2], dtype=np.int64))
        self._constant("features-axis", np.array(1, dtype=np.int64))
        self._constant("bias-of-rows", np.array([1, self.groups], dtype=np.int64))
        self._constant("last", np.array(-1, dtype=np.int64))
        self._node("IsNaN", ["X"], "is-missing")
        self._node("Where", ["is-missing", "nothing", "X"], "filled")
        self._node("Unsqueeze", ["filled", "groups-axis"], "upright")
        self._node("Mul", ["upright", "weights"], "terms")
        self._node("Shape", ["X"], "rows", end=1)
        self._node("Concat", ["rows", "bias-of-rows"], "bias-shape", axis=0)
        self._node("Expand", ["bias", "bias-shape"], "biases")
        self._node("Concat", ["biases", "terms"], "summands", axis=1)
        self._node("CumSum", ["summands", "features-axis"], "sums")
        self._node("Gather", ["sums", "last"], "margins", axis=1)

    def link(self, objective: str, *, is_classifier: bool) -> None:
        """From margins to what the model calls its answer."""
        if objective in _SIGMOID:
            self._node("Sigmoid", ["margins"], "linked")
        elif objective in _EXP:
            self._node("Exp", ["margins"], "linked")
        elif objective in _SOFTMAX:
            self._node("Softmax", ["margins"], "linked", axis=1)
        elif objective == "binary:hinge":
            self._constant("zero", np.array(0, dtype=np.float32))
            self._node("Greater", ["margins", "zero"], "above")
            self._node("Cast", ["above"], "linked", to=TensorProto.FLOAT)
        elif objective in _IDENTITY:
            self._node("Identity", ["margins"], "linked")
        else:
            raise Unsuited("its objective '%s' has no known link" % objective[:60])
        if is_classifier:
            self._classes(objective)
        elif objective == "multi:softmax":
            self._node("ArgMax", ["margins"], "classes", axis=1, keepdims=0)
            self._node("Cast", ["classes"], "predictions", to=TensorProto.FLOAT)
            self.outputs.append(("predictions", TensorProto.FLOAT))
        else:
            self._node("Identity", ["linked"], "predictions")
            self.outputs.append(("predictions", TensorProto.FLOAT))

    def _classes(self, objective: str) -> None:
        if objective in _SOFTMAX:
            self._node("ArgMax", ["margins"], "predictions", axis=1, keepdims=0)
            self._node("Identity", ["linked"], "probabilities")
        elif self.groups == 1:
            self._constant("half", np.array(0.5, dtype=np.float32))
            self._constant("certain", np.array(1, dtype=np.float32))
            self._node("Greater", ["linked", "half"], "is-one")
            self._node("Cast", ["is-one"], "predictions", to=TensorProto.INT64)
            self._node("Sub", ["certain", "linked"], "other")
            self._node("Concat", ["other", "linked"], "probabilities", axis=1)
        else:
            raise Unsuited("it gives several labels a row")
        self.outputs += [("predictions", TensorProto.INT64), ("probabilities", TensorProto.FLOAT)]

    def model(self) -> Any:
        """What was built."""
        values = [helper.make_tensor_value_info(name, kind, None) for name, kind in self.outputs]
        shape: List[Any] = ["N", self.width]
        taken = helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "xgboost", [taken], values, self.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def _node(self, kind: str, names: List[str], result: str, **settings: Any) -> None:
        self.nodes.append(helper.make_node(kind, names, [result], **settings))

    def _constant(self, name: str, value: Any) -> None:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))


def _check(tree: Any) -> None:
    if any(tree.get("split_type") or ()):
        raise Unsuited("it splits on categories, which this converter does not know")
    if int(tree["tree_param"].get("size_leaf_vector") or 0) > 1:
        raise Unsuited("its trees give vectors, which this converter does not know")


def _add(ensemble: Ensemble, number: int, tree: Any, group: int, weight: float) -> None:
    for node, left in enumerate(tree["left_children"]):
        value = tree["split_conditions"][node]
        if left == -1:
            ensemble.leaf(number, node, group, float(np.float32(value) * np.float32(weight)))
            continue
        ways, gaps = (int(left), int(tree["right_children"][node])), bool(tree["default_left"][node])
        ensemble.branch(number, node, "BRANCH_LT", int(tree["split_indices"][node]), value, ways, gaps)
