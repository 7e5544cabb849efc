"""`make bench-frameworks`: over scikit-learn's own list of estimators and XGBoost's types, what runs natively, what in
a worker, what is refused, and whether any answer is wrong; with seconds, latency and the environment's cost.

    python -m bench.frameworks [--only NAME…] [--workers N]

Each model is trained in the pinned environment, then goes through `inspect_step`: scan, conversion in a sandbox, gate.
"wrong" counts native models whose answers to fresh rows of the training set differ from the original's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgepack.commands.cache import cache_folder
from edgepack.errors import EdgepackError
from packager.checks import Checklist
from packager.environments import CLASSIC, Environment, ready
from packager.inspect import inspect_step
from packager.project import Project

SWEEP = Path(__file__).with_name("frameworks_sweep.py")
TRAINING = Path(__file__).parents[1] / "tests/frameworks/training.py"
XGBOOST = (
    *("xgb_binary", "xgb_classes", "xgb_regressor", "xgb_forest_classes", "xgb_forest_regressor"),
    *("booster_classes", "booster_forest_classes", "booster_forest_regressor", "booster_regressor"),
)
_LATENCY = (
    "import pickle,sys,time,numpy as np,warnings; warnings.simplefilter('ignore');"
    "m=pickle.load(open(sys.argv[1],'rb'));"
    "x=np.load(sys.argv[2])['x'][:1]; f=m.predict; [f(x) for _ in range(20)]; t=time.perf_counter();"
    "[f(x) for _ in range(200)]; print((time.perf_counter()-t)/200)"
)


@dataclass(frozen=True)
class Row:
    """What became of one estimator."""

    name: str
    kind: str
    runtime: str
    reason: str
    seconds: float
    max_rel: float
    flips: int


def main() -> None:
    """Train, sweep, print."""
    parser = argparse.ArgumentParser(prog="bench.frameworks")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    cache = cache_folder(os.environ)
    start = time.monotonic()
    classic = ready(CLASSIC, cache, os.environ, notice=print)
    kept = classic.kept
    print(f"environment '{kept.title}': {kept.size_bytes / 1e6:.0f} MB, made in {kept.seconds:g} s, ", end="")
    print(f"ready in {time.monotonic() - start:.2f} s")
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as work:
        folder = Path(work)
        subprocess.run([classic.python, SWEEP, folder, *given.only], check=True)
        trained = json.loads((folder / "trained.json").read_text())
        if not given.only:
            subprocess.run([classic.python, TRAINING, folder, *XGBOOST], check=True, capture_output=True)
            trained += [{"name": name, "kind": "xgboost"} for name in XGBOOST]
        with ThreadPoolExecutor(given.workers) as pool:
            rows = list(pool.map(lambda each: tried(folder, each, cache), trained))
        table(rows)
        latency(folder, classic, cache)


def tried(folder: Path, model: dict[str, Any], cache: Path) -> Row:
    """Inspect one trained model."""
    name, start = model["name"], time.monotonic()
    try:
        opened = Project.open(folder / name)
        found = inspect_step(opened.steps[0], opened.root, Checklist(), cache)
    except EdgepackError as error:
        return Row(name, model["kind"], "refused", str(error), time.monotonic() - start, 0, 0)
    seconds, proven = time.monotonic() - start, found.parity or {}
    rel, flips = 0.0, 0
    if found.spec.runtime == "onnx" and (folder / f"{name}.npz").is_file():
        rel, flips = fresh(folder / f"{name}.npz", next(iter(found.files.values())))
    return Row(name, model["kind"], found.spec.runtime, str(proven.get("reason", "")), seconds, rel, flips)


def fresh(rows: Path, model: Path) -> tuple[float, int]:
    """Rows of the training set, which the gate did not have: the largest difference, and labels that differ."""
    with np.load(rows, allow_pickle=False) as found:
        inputs, expected = found["x"], found["y"]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    node = session.get_inputs()[0]
    given = inputs.astype(np.float64 if "double" in node.type else np.float32)
    (answer,) = session.run([session.get_outputs()[0].name], {node.name: given})
    if expected.dtype.kind in "iuUSOb":
        return 0.0, int((np.asarray(answer).astype(str) != expected.astype(str)).sum())
    got, want = np.asarray(answer, dtype=np.float64).reshape(len(expected), -1), expected.reshape(len(expected), -1)
    return float(np.max(np.abs(got - want) / np.maximum(1, np.abs(want)))), 0


def table(rows: list[Row]) -> None:
    """Counts by kind, then every model that is not native, with its reason."""
    for kind in sorted({row.kind for row in rows}):
        of_kind = [row for row in rows if row.kind == kind]
        counts = Counter(row.runtime for row in of_kind)
        wrong = [row for row in of_kind if row.runtime == "onnx" and (row.flips or row.max_rel > 1e-4)]
        seconds = statistics.median(row.seconds for row in of_kind)
        print(
            f"{kind:12} {len(of_kind):4} models: {counts['onnx']:3} native, {counts['python']:3} python, "
            f"{counts['refused']:3} refused; {len(wrong)} differ on rows of the training set; median {seconds:.1f} s"
        )
        for row in wrong:
            print(f"  differs  {row.name}: {row.flips} labels, {row.max_rel:.2g} relative")
    for row in rows:
        if row.runtime != "onnx":
            print(f"  {row.runtime:8} {row.name}: {row.reason[:140]}")


def latency(folder: Path, classic: Environment, cache: Path) -> None:
    """One row, native against the original's own call, in one run."""
    for name in ("RandomForestClassifier", "LogisticRegression", "HistGradientBoostingRegressor"):
        if not (folder / f"{name}.npz").is_file():
            continue
        opened = Project.open(folder / name)
        model = next(iter(inspect_step(opened.steps[0], opened.root, Checklist(), cache).files.values()))
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        node = session.get_inputs()[0]
        with np.load(folder / f"{name}.npz", allow_pickle=False) as found:
            row = found["x"][:1].astype(np.float64 if "double" in node.type else np.float32)
        for _ in range(50):
            session.run(None, {node.name: row})
        start = time.perf_counter()
        for _ in range(500):
            session.run(None, {node.name: row})
        native = (time.perf_counter() - start) / 500
        command = [classic.python, "-c", _LATENCY, folder / name, folder / f"{name}.npz"]
        original = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"one row, {name}: native {native * 1e6:.0f} µs, original {original * 1e6:.0f} µs, "
            f"{original / native:.0f} x"
        )


if __name__ == "__main__":
    main()
