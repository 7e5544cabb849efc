"""Mends faults of the converters while they run: trees that would answer otherwise at a threshold or for NaN.

skl2onnx leaves out where a decision tree sends missing values, and rounds the thresholds of HistGradientBoosting to
the nearest float of 32 bits; onnxmltools does the latter with LightGBM's. Such a threshold is compared with `<=`: for
inputs of 32 bits the answer stays the same only if it is rounded down. Every mended model goes through the gate like
all others: a converter that changes its insides loses the mend, not the truth.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any, Callable, Iterator, List

import numpy as np


@contextlib.contextmanager
def mended_converters() -> Iterator[None]:
    """While it lasts, trees are converted as they decide."""
    with contextlib.ExitStack() as undo:
        for mend in (_lightgbm, _sklearn_nodes, _sklearn_trees):
            with contextlib.suppress(ImportError, AttributeError):
                mend(undo)
        yield


def rounded_down(value: float) -> float:
    """The largest float of 32 bits that is not above a number."""
    with np.errstate(over="ignore"):
        near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))


def _replace(undo: contextlib.ExitStack, modules: List[Any], name: str, made: Callable[..., Any]) -> None:
    for module in modules:
        if hasattr(module, name):
            undo.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, made)


def _lightgbm(undo: contextlib.ExitStack) -> None:
    module = importlib.import_module("onnxmltools.convert.lightgbm.operator_converters.LightGbm")
    told = module.dump_booster_model

    def dump_booster_model(*args: Any, **kwargs: Any) -> Any:
        found, more = told(*args, **kwargs)
        waiting = [tree["tree_structure"] for tree in found["tree_info"]]
        while waiting:
            node = waiting.pop()
            if "split_feature" in node:
                if node["decision_type"] == "<=":
                    node["threshold"] = rounded_down(float(node["threshold"]))
                waiting += [node["left_child"], node["right_child"]]
        return found, more

    _replace(undo, [module], "dump_booster_model", dump_booster_model)


def _sklearn_nodes(undo: contextlib.ExitStack) -> None:
    """HistGradientBoosting's nodes; other trees have their thresholds rounded by the converter itself."""
    module = importlib.import_module("skl2onnx.common.tree_ensemble")
    inner = module.add_node

    def add_node(*args: Any, **kwargs: Any) -> Any:
        mode, value = args[6], args[7]
        is_narrow = kwargs.get("dtype") != np.float64
        if mode == "BRANCH_LEQ" and is_narrow and not kwargs.get("adjust_threshold_for_sklearn"):
            args = (*args[:7], rounded_down(float(value)), *args[8:])
        return inner(*args, **kwargs)

    _replace(undo, [module], "add_node", add_node)


def _sklearn_trees(undo: contextlib.ExitStack) -> None:
    """Decision trees and what is made of them: a missing value goes where most rows of the training set went."""
    module = importlib.import_module("skl2onnx.common.tree_ensemble")
    inner = module.add_tree_to_attribute_pairs
    users = [each for name, each in list(sys.modules.items()) if name.startswith("skl2onnx.operator_converters")]

    def add_tree_to_attribute_pairs(attr_pairs: Any, is_classifier: Any, tree: Any, *args: Any, **kwargs: Any) -> Any:
        done = inner(attr_pairs, is_classifier, tree, *args, **kwargs)
        ways = getattr(tree, "missing_go_to_left", None)
        if ways is not None:
            attr_pairs["nodes_missing_value_tracks_true"][-len(ways) :] = [int(way) for way in ways]
        return done

    _replace(undo, [module, *users], "add_tree_to_attribute_pairs", add_tree_to_attribute_pairs)
