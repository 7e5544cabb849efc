"""The end of trees that compare floats of 64 bits: what makes answers of their sums.

A threshold of theirs may be a value of the training set itself. Rounded to 32 bits, value and threshold part ways, and
the very rows that the model was trained with get other answers. So trees and input keep their 64 bits here; an input of
32 bits is widened, as the originals do.
"""

from __future__ import annotations

from typing import Any, Collection, List

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .ensemble import Ensemble
from .graph import IR_VERSION, OPSETS

SIGMOID, SOFTMAX, EXP, PLAIN = "Sigmoid", "Softmax", "Exp", "Identity"  # from sums to answers


class WideGraph:
    """A model with input `X` of 64 bits and outputs `predictions` and, where there are classes, `probabilities`."""

    def __init__(self, ensemble: Ensemble, width: int) -> None:
        self.ensemble, self.width = ensemble, width
        self._nodes: List[Any] = []
        self._constants: List[Any] = []
        self._outputs: List[Any] = []

    def sums(self, base: List[float], categories: Collection[int] = (), scale: float = 1.0) -> None:
        """Let the trees add up. Of a feature in `categories` the whole part counts; sums are multiplied by `scale`."""
        entered = "X"
        if categories:
            is_category = np.array([[feature in categories for feature in range(self.width)]])
            self._add("Cast", ["X"], "as-integers", to=TensorProto.INT64)
            self._add("Cast", ["as-integers"], "whole", to=TensorProto.DOUBLE)
            entered = self._add("Where", [self._constant("is-category", is_category), "whole", "X"], "entered")
        self._nodes.append(self.ensemble.operator(entered, "added", base))
        self._add("Mul", ["added", self._constant("scale", np.array(scale, dtype=np.float32))], "sums")

    def answers(self, link: str, classes: Any = None) -> None:
        """What the model says: the linked sums, or labels and their probabilities."""
        self._add(link, ["sums"], "linked", **({"axis": 1} if link == SOFTMAX else {}))
        if classes is None:
            self._add("Identity", ["linked"], "predictions")
            self._outputs = [("predictions", TensorProto.FLOAT)]
            return
        labels = _labels(classes)
        if self.ensemble.targets == 1:
            self._two_classes()
        else:
            self._add("ArgMax", ["sums"], "chosen", axis=1, keepdims=0)
            self._add("Identity", ["linked"], "probabilities")
        self._add("Gather", [self._constant("classes", labels), "chosen"], "predictions", axis=0)
        kind = TensorProto.STRING if labels.dtype == object else TensorProto.INT64
        self._outputs = [("predictions", kind), ("probabilities", TensorProto.FLOAT)]

    def _two_classes(self) -> None:
        self._add("Greater", ["sums", self._constant("zero", np.array(0, dtype=np.float32))], "is-second")
        self._add("Cast", ["is-second"], "chosen", to=TensorProto.INT64)
        self._add("Sub", [self._constant("certain", np.array(1, dtype=np.float32)), "linked"], "other")
        self._add("Concat", ["other", "linked"], "probabilities", axis=1)

    def model(self) -> Any:
        """What was built."""
        shape: List[Any] = ["N", self.width]
        taken = helper.make_tensor_value_info("X", TensorProto.DOUBLE, shape)
        given = [helper.make_tensor_value_info(name, kind, None) for name, kind in self._outputs]
        graph = helper.make_graph(self._nodes, "trees", [taken], given, self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def _add(self, kind: str, names: List[str], made: str, **settings: Any) -> str:
        self._nodes.append(helper.make_node(kind, names, [made], **settings))
        return made

    def _constant(self, name: str, value: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _labels(classes: Any) -> Any:
    classes = np.asarray(classes)
    if classes.dtype.kind in "OUS":
        return np.array([str(each) for each in classes], dtype=object)
    return classes.astype(np.int64)
