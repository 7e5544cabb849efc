"""Seconds to check and convert a model as a build does it, and one row native against the original's own call."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from packager import gate
from packager.conversion import convert
from packager.environments import Environment
from packager.frameworks.estimators import saved_as

_ORIGINAL = (
    "import pickle,sys,time,numpy as np,warnings; warnings.simplefilter('ignore');"
    "m=pickle.load(open(sys.argv[1],'rb'));"
    "x=np.load(sys.argv[2])['x'][:1]; f=m.predict; [f(x) for _ in range(20)]; t=time.perf_counter();"
    "[f(x) for _ in range(200)]; print((time.perf_counter()-t)/200)"
)


def measure_conversions(folder: Path, names: list[str], classic: Environment) -> None:
    """Scan, convert in the sandbox, gate: nothing of it from the cache."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as work:
            start = time.monotonic()
            saved_as(folder / name)
            found = convert(folder / name, "pickle", classic, Path(work), inputs=None, outputs=None)
            converted = time.monotonic()
            verdict = gate.choose(found.attempts, 1e-5, 120)
            proven = time.monotonic()
            told = f"{verdict.comparison.rows} rows, {verdict.attempt.strategy}"
            print(f"check and convert {name}: {converted - start:.1f} s, prove {proven - converted:.1f} s ({told})")
            (folder / f"{name}.onnx").write_bytes(verdict.attempt.model.read_bytes() if verdict.attempt.model else b"")


def measure_latency(folder: Path, names: list[str], classic: Environment) -> None:
    """One row after another, in one thread of control; native in this process."""
    for name in names:
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        node = session.get_inputs()[0]
        with np.load(folder / f"{name}.npz", allow_pickle=False) as found:
            row = found["x"][:1].astype(np.float64 if "double" in node.type else np.float32)
        for _ in range(50):
            session.run(None, {node.name: row})
        start = time.perf_counter()
        for _ in range(500):
            session.run(None, {node.name: row})
        native = (time.perf_counter() - start) / 500
        command = [classic.python, "-c", _ORIGINAL, folder / name, folder / f"{name}.npz"]
        original = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"one row, {name}: native {native * 1e6:.0f} µs, original {original * 1e6:.0f} µs, "
            f"{original / native:.0f} x"
        )
