"""The models that serving is measured with, made by code with random weights: small, and of MobileNet's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 29  # floats a row of the small model

# expansion, channels, repeats, stride: the blocks of MobileNetV2 (Sandler et al. 2018, table 2)
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class _Net:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, shape: tuple[int, ...], fan_in: float) -> str:
        name = f"w{len(self.weights)}"
        values = self._random.normal(0, (2.0 / fan_in) ** 0.5, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], out: str | None = None, **attributes: Any) -> str:
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def dense(self, x: str, wide: int, narrow: int) -> str:
        return self.node("Gemm", [x, self.weight((wide, narrow), wide), self.weight((narrow,), 1e4)])

    def conv(
        self, x: str, ins: int, outs: int, size: int, *, stride: int = 1, groups: int = 1, bend: bool = True
    ) -> str:
        weights = [self.weight((outs, ins // groups, size, size), ins // groups * size * size)]
        weights.append(self.weight((outs,), 1e4))
        pads = [size // 2] * 4
        y = self.node("Conv", [x, *weights], strides=[stride] * 2, pads=pads, group=groups, kernel_shape=[size] * 2)
        return self.node("Clip", [y, "zero", "six"]) if bend else y

    def save(self, path: Path, takes: tuple[str, list[str | int]], gives: tuple[str, list[str | int]]) -> Path:
        sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (takes, gives)]
        graph = helper.make_graph(self.nodes, "g", sides[:1], sides[1:], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def small(path: Path) -> Path:
    """29 floats, 32 and 16 hidden, one probability: the size of a fraud or anomaly model."""
    net, x = _Net(1), "tensor"
    for wide, narrow in ((WIDTH, 32), (32, 16), (16, 1)):
        y = net.dense(x, wide, narrow)
        x = net.node("Sigmoid", [y], "dense_1") if narrow == 1 else net.node("Relu", [y])
    return net.save(path, ("tensor", ["n", WIDTH]), (x, ["n", 1]))


def image_network(path: Path) -> Path:
    """MobileNetV2's layout, 3.5 million weights, 224 by 224 pixels, 1,000 classes; batch norms folded."""
    net, width = _Net(3), 32
    net.weights += [numpy_helper.from_array(np.float32(value), name) for value, name in ((0, "zero"), (6, "six"))]
    x = net.conv("image", 3, width, 3, stride=2)
    for expansion, outs, repeats, stride in _BLOCKS:
        for index in range(repeats):
            x, width = _block(net, x, width, outs, expansion, stride if index == 0 else 1), outs
    x = net.node("Flatten", [net.node("GlobalAveragePool", [net.conv(x, width, 1280, 1)])])
    x = net.node("Softmax", [net.dense(x, 1280, 1000)], "scores", axis=1)
    return net.save(path, ("image", ["n", 3, 224, 224]), (x, ["n", 1000]))


def _block(net: _Net, x: str, ins: int, outs: int, expansion: int, stride: int) -> str:
    hidden = ins * expansion
    y = net.conv(x, ins, hidden, 1) if expansion > 1 else x
    y = net.conv(y, hidden, hidden, 3, stride=stride, groups=hidden)
    y = net.conv(y, hidden, outs, 1, bend=False)
    return net.node("Add", [x, y]) if stride == 1 and ins == outs else y
