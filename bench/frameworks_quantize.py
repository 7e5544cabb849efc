"""What quantization gives and takes: bytes, CPU time of a row, and how far answers move, of three networks made here.

    python -m bench.frameworks_quantize

Each is packaged with golden rows as a user packages it, `optimize` dynamic and static. CPU time in one thread, the best
of some turns, against the same network in floats; its weights are random, so "of its range" is worse than a trained
network's.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from arch.target import host_target
from bench.models import image_network
from bench.table import Figure, print_table
from bundle.bundle import bundles
from bundle.store import unpack
from edgepack.commands.cache import cache_folder
from edgepack.errors import BadInput
from packager.package import package
from packager.project import Project

_TURNS = 5
_TOLERANCE = 1.0  # what random weights lose is printed, not judged


@dataclass(frozen=True)
class Net:
    """A network: its file's stem, the shape of a row, how many golden rows it gets, and calls in one turn."""

    name: str
    row: tuple[int, ...]
    rows: int
    calls: int


NETS = (Net("dense", (64,), 32, 500), Net("pictures", (1, 16, 16), 32, 200), Net("image", (3, 224, 224), 4, 3))
WAYS = ("dynamic", "static")


def main() -> None:
    """Print the table."""
    onnxruntime.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as work:
        print_table(
            [figure for net in NETS for way in WAYS for figure in _figures(net, way, Path(work, net.name, way))]
        )


def _figures(net: Net, way: str, folder: Path) -> Iterator[Figure]:
    """Package a network and measure it. One that has nothing for a way says so in the table's place."""
    original, rows = _project(net, way, folder)
    title = f"{net.name}, {way}"
    try:
        found = package(Project.open(folder), [host_target()], cache=cache_folder(os.environ))
    except BadInput as error:
        print(f"{title}: {error}")
        return
    told = found.parity["optimize"][net.name]
    bundle = unpack(bundles(found.index)[0], folder / "bundle")
    quantized = bundle / found.spec.steps[0].model
    sizes = told["size_bytes"]
    yield Figure(f"{title}: bytes before", sizes["before"] / 1e3, "kB")
    yield Figure(f"{title}: bytes after", sizes["after"] / 1e3, "kB")
    loss = max(told["fields"].values(), key=lambda each: float(each["of_range"]))
    yield Figure(f"{title}: largest difference, of the range", loss["of_range"] * 100, "%")
    yield Figure(f"{title}: largest difference, relative to max(1, |y|)", loss["max_rel"] * 100, "%")
    for count in sorted({1, min(64, net.calls * 20)}):
        asked = np.repeat(rows, 64, axis=0)[:count]
        ratio = _cpu_s(quantized, asked, net.calls) / _cpu_s(original, asked, net.calls)
        yield Figure(f"{title}: CPU time of {count} {'row' if count == 1 else 'rows'}, of floats", ratio, "x")


def _project(net: Net, way: str, folder: Path) -> tuple[Path, Any]:
    """A project around a network, with golden rows: its file, its rows."""
    folder.mkdir(parents=True)
    path = folder / f"{net.name}.onnx"
    {"dense": _dense, "pictures": _pictures, "image": image_network}[net.name](path)
    rows = np.random.default_rng(5).normal(size=(net.rows, *net.row)).astype(np.float32)
    field = onnx.load(path, load_external_data=False).graph.input[0].name
    (folder / "golden.json").write_text(json.dumps([{f"in.{field}": row.tolist()} for row in rows]))
    (folder / "edgepack.toml").write_text(
        f'[pipeline]\nname = "{net.name}"\n[[steps]]\nmodel = "{path.name}"\n'
        f'optimize = {{ quantize = "{way}", tolerance = {_TOLERANCE} }}\n[golden]\nrows = "golden.json"\n'
    )
    return path, rows


def _cpu_s(path: Path, rows: Any, calls: int) -> float:
    """CPU seconds of one call, in one thread: the best of some turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: rows}
    session.run(None, feeds)
    best = float("inf")
    for _ in range(_TURNS):
        start = time.process_time()
        for _ in range(calls):
            session.run(None, feeds)
        best = min(best, (time.process_time() - start) / calls)
    return best


def _dense(path: Path) -> None:
    """64 numbers, twice 512 hidden, ten scores: 1.2 MB."""
    nodes, weights, x = [], {}, "numbers"
    for at, (wide, narrow) in enumerate(((64, 512), (512, 512), (512, 10))):
        weights[f"w{at}"] = _random((wide, narrow), wide)
        nodes.append(helper.make_node("Gemm", [x, f"w{at}"], ["scores" if at == 2 else f"y{at}"]))
        x = f"x{at}"
        nodes += [helper.make_node("Relu", [f"y{at}"], [x])] if at < 2 else []
    _save(path, nodes, weights, ("numbers", ["n", 64]))


def _pictures(path: Path) -> None:
    """Three convolutions over a picture of 16 by 16, ten scores: a few hundred kilobytes."""
    nodes, weights, x = [], {}, "picture"
    for at, (ins, outs) in enumerate(((1, 32), (32, 64), (64, 128))):
        weights[f"w{at}"] = _random((outs, ins, 3, 3), ins * 9)
        nodes.append(helper.make_node("Conv", [x, f"w{at}"], [f"y{at}"], pads=[1] * 4, strides=[1 + at % 2] * 2))
        nodes.append(helper.make_node("Relu", [f"y{at}"], [f"x{at}"]))
        x = f"x{at}"
    weights["last"] = _random((128, 10), 128)
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "last"], ["scores"]),
    ]
    _save(path, nodes, weights, ("picture", ["n", 1, 16, 16]))


def _random(shape: tuple[int, ...], fan_in: int) -> Any:
    return np.random.default_rng(len(shape) + fan_in).normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)


def _save(path: Path, nodes: list[Any], weights: dict[str, Any], takes: tuple[str, list[Any]]) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(takes[0], TensorProto.FLOAT, takes[1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


if __name__ == "__main__":
    main()
