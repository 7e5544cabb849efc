"""`make bench-frameworks`: a model of each framework from its file to its running step (`frameworks_each`), what
quantization gives (`frameworks_quantize`), and over scikit-learn's own list of estimators and XGBoost's types, what
runs natively, what in a worker, what is refused, and whether any answer is wrong.

    python -m bench.frameworks [--quick] [--json] [--only NAME…] [--workers N]

`--quick` leaves out the list of estimators: some two minutes instead of seven. `--json` prints one object; what is
going on is told on standard error.

Of the list, each model is trained in the pinned environment, scanned, converted there and put through the gate.
"wrong" counts models whose answers to rows of the training set, which the gate did not have, differ from the original's
by more than the tolerance: the converted model asked by onnxruntime, the others by the worker's own code.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import packager
import runtimes
from bench import frameworks_quantize
from bench.frameworks_each import as_objects, measure_each, print_each
from bench.frameworks_latency import measure_conversions, measure_latency
from edgepack.commands.cache import cache_folder
from edgepack.errors import EdgepackError
from packager import gate
from packager.conversion import NATIVE, Converted, read_result
from packager.environments import CLASSIC, Environment, ready
from packager.frameworks.estimators import saved_as

HERE = Path(__file__).parent
PACKAGER, SHIM = Path(packager.__file__).parent, Path(runtimes.__file__).parent / "shim"
TOLERANCE = 1e-5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as conversions have it, and a worker on one CPU
_DTYPES = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(int64)": "i8", "tensor(string)": "O"}
WIDTHS = (7, 8, 8, 9, 7)  # of the table's columns
TIMED = ("LogisticRegression", "RandomForestClassifier", "HistGradientBoostingRegressor", "XGBClassifier")


@dataclass(frozen=True)
class Row:
    """What became of one estimator. `order` is what a worker is told, for one that runs there."""

    name: str
    kind: str
    runtime: str
    reason: str = ""
    rel: float = 0.0
    flips: int = 0
    order: dict[str, Any] | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether it runs and answers otherwise."""
        return self.runtime != "refused" and (self.flips > 0 or not self.rel <= TOLERANCE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.frameworks")
    parser.add_argument("--quick", action="store_true", help="leave out scikit-learn's list of estimators")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--only", nargs="*", default=[], help="of that list, these alone")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    onnxruntime.set_default_logger_severity(3)
    begun = time.monotonic()
    told: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr if given.json else sys.stdout):
        each = measure_each(lambda text: print(text, file=sys.stderr))
        print_each(each)
        told["quantization"] = quantization()
        if not given.quick:
            told["estimators"] = sweep(given.only, given.workers)
        seconds, load = time.monotonic() - begun, os.getloadavg()[0]
        print(f"all of it: {seconds:.0f} s, load {load:.1f} on {os.cpu_count()} CPUs")
    if given.json:
        print(json.dumps({"each": as_objects(each), **told, "seconds": seconds, "load": load, "cpus": os.cpu_count()}))


def quantization() -> list[str]:
    """The lines of `frameworks_quantize`, which are printed."""
    lines = io.StringIO()
    with contextlib.redirect_stdout(lines):
        frameworks_quantize.main()
    print(lines.getvalue(), end="")
    return [" ".join(line.split()) for line in lines.getvalue().splitlines()]


def sweep(only: list[str], workers: int) -> dict[str, dict[str, int]]:
    """Train scikit-learn's list, convert, ask, print; by kind how many models became what."""
    classic = environment()
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as work:
        folder = Path(work)
        os.environ.update(ONE_THREAD)
        subprocess.run([classic.python, HERE / "frameworks_sweep.py", folder, *only], check=True, stdout=sys.stderr)
        trained = json.loads((folder / "trained.json").read_text())
        models = [model for model in trained if "rows" in model]
        with ThreadPoolExecutor(workers) as pool:
            rows = list(pool.map(lambda model: proven(folder, model), converted(folder, models, classic, workers)))
        rows = worked(folder, rows, classic)
        print_table(rows, [model for model in trained if "rows" not in model])
        timed = [name for name in TIMED if (folder / name).is_file()]
        measure_conversions(folder, timed, classic)
        measure_latency(folder, timed, classic)
    return {kind: counts_of(rows, kind) for kind in kinds_of(rows)}


def environment() -> Environment:
    """The pinned environment, and what it costs."""
    start = time.monotonic()
    classic = ready(CLASSIC, cache_folder(os.environ), os.environ, notice=print)
    kept = classic.kept
    print(f"environment '{kept.title}': {kept.size_bytes / 1e6:.0f} MB, made in {kept.seconds:g} s, ", end="")
    print(f"ready in {time.monotonic() - start:.2f} s")
    return classic


def converted(
    folder: Path, models: list[dict[str, Any]], classic: Environment, workers: int
) -> Iterator[dict[str, Any]]:
    """The models, each as soon as its conversion has ended."""
    jobs = []
    for model in models:
        into = folder / "converted" / model["name"]
        into.mkdir(parents=True)
        job = {"name": model["name"], "model": str(folder / model["name"]), "form": "pickle", "folder": str(into)}
        attempts = [{"strategy": strategy} for strategy in (*NATIVE, "python")]
        jobs.append(json.dumps({**job, "input": None, "output": None, "attempts": attempts}))
    named = {model["name"]: model for model in models}
    command = [classic.python, HERE / "frameworks_convert.py", PACKAGER, str(workers), *jobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield named[line.strip().partition(" ")[2]]


def proven(folder: Path, model: dict[str, Any]) -> Row:
    """Scan the file and let the gate judge what its conversion left."""
    name, kind = model["name"], model["kind"]
    try:
        saved_as(folder / name)
        found = read_result(folder / "converted" / name, folder / name)
        verdict = gate.choose(found.attempts, TOLERANCE, 120)
    except EdgepackError as error:
        return Row(name, kind, "refused", str(error))
    row = Row(name, kind, "onnx" if verdict.attempt.strategy in NATIVE else "python", verdict.reason or "")
    saved = folder / f"{name}.npz"
    if not saved.is_file() or gate.NOT_COMPARABLE in row.reason:
        return row
    if verdict.attempt.model is None:
        return replace(row, order=order_of(folder / name, found, verdict))
    rel, flips = differences(saved, native(saved, verdict.attempt.model))
    return replace(row, rel=rel, flips=flips)


def order_of(model: Path, found: Converted, verdict: gate.Verdict) -> dict[str, Any]:
    """What a worker is told of a step."""
    attempt = verdict.attempt
    options = {"format": "pickle", "inputs": found.layout, "outputs": dict(attempt.methods)}
    fields = {"input": attempt.input.to_dict(), "output": attempt.output.to_dict()}
    return {"name": model.name, "model": str(model), **fields, "options": options}


def worked(folder: Path, rows: list[Row], classic: Environment) -> list[Row]:
    """The rows of the training set, asked of the worker's code for all that run there."""
    orders = [row.order for row in rows if row.order is not None]
    (folder / "orders.json").write_text(json.dumps(orders))
    command = [classic.python, HERE / "frameworks_worker.py", SHIM, folder]
    wrong = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    made = []
    for row in rows:
        if row.name in wrong:
            row = replace(row, rel=float("inf"), reason=f"{wrong[row.name]}; {row.reason}")
        elif row.order is not None:
            with np.load(folder / f"{row.name}-worker.npz", allow_pickle=False) as answers:
                rel, flips = differences(folder / f"{row.name}.npz", dict(answers))
            row = replace(row, rel=rel, flips=flips)
        made.append(row)
    return made


def native(rows: Path, model: Path) -> dict[str, Any]:
    """What onnxruntime answers to saved rows."""
    with np.load(rows, allow_pickle=False) as found:
        inputs = found["x"]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    given = inputs.astype(_DTYPES[node.type]).reshape(len(inputs), *(() if len(node.shape) == 1 else (-1,)))
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, {node.name: given}), strict=True))


def differences(rows: Path, answers: dict[str, Any]) -> tuple[float, int]:
    """Answers against the original's: the largest relative difference of numbers, and how many labels differ."""
    with np.load(rows, allow_pickle=False) as found:
        expected = {name: found[name] for name in found.files}
    rel, flips = 0.0, 0
    for name in set(answers) & set(expected):
        one = difference(np.asarray(answers[name]), expected[name])
        rel, flips = max(rel, one[0]), flips + one[1]
    return rel, flips


def difference(answer: Any, expected: Any) -> tuple[float, int]:
    """Of one field."""
    answer = answer.reshape(expected.shape)
    if expected.dtype.kind != "f":
        return 0.0, int((answer.astype(str) != expected.astype(str)).sum())
    gaps = np.isnan(expected)
    with np.errstate(invalid="ignore"):
        apart = np.abs(answer - expected) / np.maximum(1, np.abs(expected))
    return float(apart[~gaps].max(initial=0.0)), int((np.isnan(answer) != gaps).sum())


def kinds_of(rows: list[Row]) -> list[str]:
    """What the table counts, line by line."""
    return [*sorted({row.kind for row in rows}), "all"]


def counts_of(rows: list[Row], kind: str) -> dict[str, int]:
    """What became of the models of a kind."""
    of_kind = [row for row in rows if kind in (row.kind, "all")]
    found = Counter(row.runtime for row in of_kind)
    ran = {name: found[runtime] for name, runtime in (("native", "onnx"), ("python", "python"), ("refused", "refused"))}
    return {"models": len(of_kind), **ran, "wrong": sum(row.is_wrong for row in of_kind)}


def print_table(rows: list[Row], left_out: list[dict[str, str]]) -> None:
    """Counts by kind, then every model that is not native, with its reason."""
    print(f"{'':12} models  native  python  refused  wrong")
    for kind in kinds_of(rows):
        counts = counts_of(rows, kind)
        print(f"{kind:12}" + "".join(f"{count:{width}}" for count, width in zip(counts.values(), WIDTHS, strict=True)))
    native = [row.rel for row in rows if row.runtime == "onnx"]
    print(f"largest difference of a native one: {max(native):.2g}, median {statistics.median(native):.2g}")
    for row in sorted(rows, key=lambda row: (row.runtime, row.name)):
        if row.is_wrong:
            print(f"  wrong    {row.name} in {row.runtime}: {row.flips} labels, {row.rel:.2g}; {row.reason[:300]}")
        elif row.runtime != "onnx":
            print(f"  {row.runtime:8} {row.name}: {row.reason[:140]}")
    names = ", ".join(model["name"] for model in left_out if "no predict" in model["left_out"])
    print(f"  neither predict nor transform: {names or 'none'}")
    for model in left_out:
        if "no predict" not in model["left_out"]:
            print(f"  not fitted {model['name']}: {model['left_out']}")


if __name__ == "__main__":
    main()
