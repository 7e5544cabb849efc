"""Small ONNX models, made in memory, and unpacked bundles of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from arch.target import host_target
from bundle.bundle import bundles, pack
from bundle.pipeline import PipelineSpec, StepSpec
from bundle.store import unpack

IR, OPSET = 10, 17
Shape = list[Any]
GOLDEN = b'[{"in.x": [1, 2, 3], "out.y": [12.0]}, {"in.x": [0.5, 0, 0], "out.y": [1.0]}]'
KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "string": TensorProto.STRING}


def graph(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: dict[str, Any] | None = None
) -> bytes:
    """A model; inputs and outputs map name to (kind, shape)."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def linear(width: int = 3, factor: float = 2.0, rows: int | str = "n", declared: int | str | None = None) -> bytes:
    """y = factor * sum of x; with `declared` "k" the engine notices another width only while it runs."""
    weights = {"w": np.full((width, 1), factor, dtype=np.float32)}
    io = {"x": ("float32", [rows, declared or width])}, {"y": ("float32", [rows, 1])}
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], *io, weights)


def identity(kind: str, shape: Shape) -> bytes:
    """y = x."""
    return graph([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


def lookup() -> bytes:
    """y = table[x]: fails on rows that point outside of its three entries."""
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    table = {"table": np.array([10, 20, 30], dtype=np.float32)}
    return graph(nodes, {"x": ("int64", ["n"])}, {"y": ("float32", ["n"])}, table)


def step(name: str = "linear", **changes: Any) -> StepSpec:
    """A step for `linear()`, with changes."""
    said = {
        "name": name,
        "model": f"{name}.onnx",
        "framework": "onnx",
        "runtime": "onnx",
        "input": {"x": "list<float32>[3]"},
        "output": {"y": "list<float32>[1]"},
    }
    return StepSpec(**{**said, **changes})


def bundle_folder(
    folder: Path, models: dict[str, bytes], steps: list[StepSpec], golden: bytes = GOLDEN, **spec: Any
) -> Path:
    """An unpacked bundle, through the real packing and unpacking."""
    files = {}
    for name, data in models.items():
        files[name] = folder / f"source-{name}"
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_bytes(data)
    index = pack(PipelineSpec(spec.pop("name", "demo"), steps, **spec), files, golden, [host_target()])
    return unpack(bundles(index)[0], folder / "bundles")
