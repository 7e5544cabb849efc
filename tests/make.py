"""Small real parts for tests: ONNX models, projects, bundles. All is made anew from arguments, nothing kept in git."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from arch.target import Target, plain_targets
from bundle.bundle import Bundle, bundles, pack
from bundle.pipeline import PipelineSpec, StepSpec
from bundle.store import unpack
from oci.digest import Digest
from oci.image import Index

IR, OPSET = 8, 17
ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}
Shape = Sequence[int | str | None]


def onnx_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Shape | None]],
    outputs: Mapping[str, tuple[str, Shape | None]],
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    ir: int = IR,
    opsets: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of nodes; inputs and outputs map a name to element type and shape."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, ELEMENTS[kind], shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, ELEMENTS[kind], shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    versions = {"": OPSET, **(opsets or {})}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def linear(width: int = 3, seed: int = 0, rows: int | str | None = "N", **versions: Any) -> onnx.ModelProto:
    """y = tensor · w, one float a row: the smallest model that can be wrong."""
    w = np.random.default_rng(seed).normal(size=(width, 1)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["tensor", "w"], ["y"])]
    return onnx_model(
        nodes, {"tensor": ("float32", [rows, width])}, {"y": ("float32", [rows, 1])}, {"w": w}, **versions
    )


def identity(kind: str = "float32", shape: Shape = ("N", 3)) -> onnx.ModelProto:
    """y = x, of any type and shape."""
    return onnx_model([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def project(folder: Path, toml: str | None = None, model: onnx.ModelProto | None = None, golden: Any = None) -> Path:
    """A project folder around `model.onnx`; `toml` is the text of edgepack.toml, `golden` goes into golden.json."""
    save(model or linear(), folder / "model.onnx")
    (folder / "edgepack.toml").write_text(toml or '[pipeline]\nname = "small"\n\n[[steps]]\nmodel = "model.onnx"\n')
    if golden is not None:
        (folder / "golden.json").write_text(json.dumps(golden))
    return folder


def spec(name: str = "small", digest: str = "", **changes: Any) -> PipelineSpec:
    """The spec of a pipeline of one step around `linear()`."""
    step = StepSpec(
        name="linear",
        model="models/linear/model.onnx",
        framework="onnx",
        runtime="onnx",
        input={"tensor": "list<float32>[3]"},
        output={"y": "list<float32>[1]"},
        sha256=digest.removeprefix("sha256:"),
    )
    return PipelineSpec(name=name, steps=[step], **changes)


def golden_rows(model: onnx.ModelProto, rows: int = 4) -> bytes:
    """Golden rows for `linear()`, answered by numpy."""
    weights = numpy_helper.to_array(model.graph.initializer[0])
    asked = np.arange(rows * len(weights), dtype=np.float32).reshape(rows, -1) / 8
    pairs = zip(asked.tolist(), (asked @ weights).tolist(), strict=True)
    return json.dumps([{"in.tensor": x, "out.y": y} for x, y in pairs]).encode()


def bundle_index(
    folder: Path, name: str = "small", *, seed: int = 0, targets: Sequence[Target] | None = None, **changes: Any
) -> Index:
    """The index of a small bundle that answers; its model file lies in `folder`. Another seed, another model."""
    model = linear(seed=seed)
    path = save(model, folder / f"{name}-{seed}.onnx")
    said = spec(name, Digest.of(path.read_bytes()), **changes)
    return pack(said, {said.steps[0].model: path}, golden_rows(model), targets or plain_targets())


def open_folder(folder: Path, name: str = "small", *, seed: int = 0, target: str = "x86", **changes: Any) -> Path:
    """A small bundle, unpacked: the path of its folder."""
    return unpack(small_bundle(folder, name, seed=seed, target=target, **changes), folder / "bundles")


def small_bundle(folder: Path, name: str = "small", *, seed: int = 0, target: str = "x86", **changes: Any) -> Bundle:
    """A small bundle for one target."""
    return bundles(bundle_index(folder, name, seed=seed, targets=[Target.parse(target)], **changes))[0]
