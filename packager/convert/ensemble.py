"""Trees as ONNX has them: all nodes of all trees in parallel lists (operators TreeEnsembleRegressor, ai.onnx.ml 3)."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np
from onnx import helper, numpy_helper

_LISTS = (
    *("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values"),
    *("nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true"),
    *("target_treeids", "target_nodeids", "target_ids", "target_weights"),
)
_NUMBERS = ("nodes_values", "target_weights")
_make_node: Any = helper.make_node  # takes the attributes of any operator as keywords


class Ensemble:
    """Trees that add up to `targets` numbers a row. With `wide`, thresholds and input are floats of 64 bits."""

    def __init__(self, targets: int, wide: bool = False) -> None:
        self.targets, self.wide = targets, wide
        self._lists: Dict[str, List[Any]] = {name: [] for name in _LISTS}

    def branch(
        self, tree: int, node: int, mode: str, feature: int, value: float, ways: Sequence[int], gaps_true: bool
    ) -> None:
        """A node that asks: `mode` as BRANCH_LEQ, `ways` the nodes where it is true and where not."""
        self._node(tree, node, mode, feature, value, ways, gaps_true)

    def leaf(self, tree: int, node: int, target: int, weight: float) -> None:
        """A node that adds its weight to a target."""
        self._node(tree, node, "LEAF", 0, 0.0, (0, 0), False)
        self._add(target_treeids=tree, target_nodeids=node, target_ids=target, target_weights=weight)

    def operator(self, given: str, made: str, base: Sequence[float]) -> Any:
        """The operator; `base` is what each target begins with. It gives floats of 32 bits in any case."""
        lists: Dict[str, Any] = dict(self._lists, base_values=list(base))
        if self.wide:
            for name in (*_NUMBERS, "base_values"):
                lists[name + "_as_tensor"] = numpy_helper.from_array(np.array(lists.pop(name), dtype=np.float64), name)
        return _make_node(
            "TreeEnsembleRegressor",
            [given],
            [made],
            domain="ai.onnx.ml",
            n_targets=self.targets,
            aggregate_function="SUM",
            post_transform="NONE",
            **lists,
        )

    def _node(
        self, tree: int, node: int, mode: str, feature: int, value: float, ways: Sequence[int], gaps_true: bool
    ) -> None:
        self._add(
            nodes_treeids=tree,
            nodes_nodeids=node,
            nodes_modes=mode,
            nodes_featureids=feature,
            nodes_values=float(value),
            nodes_truenodeids=ways[0],
            nodes_falsenodeids=ways[1],
            nodes_missing_value_tracks_true=int(gaps_true),
        )

    def _add(self, **values: Any) -> None:
        for name, value in values.items():
            self._lists[name].append(value)
