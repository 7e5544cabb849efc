"""Bundles with python steps, packed and unpacked for this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arch.target import Target, host_target
from bundle.bundle import Bundle, bundles, folder_sha256, pack
from bundle.pipeline import PipelineSpec, StepSpec, WorkerSpec, wheel_path
from oci.digest import Digest
from oci.image import Index
from runtimes.environment import this_python
from tests.runtimes.environments import numpy_wheel

SOURCE = """\
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": input_data["x"].sum(axis=1) * FACTOR}
"""
GOLDEN = b'[{"in.x": [1, 2, 3], "out.y": 12.0}, {"in.x": [0.5, 0, 0], "out.y": 1.0}]'


HELD_UP = """\
import os, time
while os.path.exists(os.path.join(os.path.dirname(__file__), "wait")):
    time.sleep(0.01)
"""


@contextmanager
def held_up(model: Path) -> Iterator[None]:
    """Have the code of a step wait wherever it says HELD_UP; `model` is the step's folder."""
    wait = model / "wait"
    wait.touch()
    try:
        yield
    finally:
        wait.unlink()


def python_step(name: str = "prepare", kind: Any = "step", **changes: Any) -> StepSpec:
    """A step in `models/<name>/` with the environment of this machine."""
    said = {
        "name": name,
        "model": f"models/{name}",
        "framework": "python",
        "runtime": "python",
        "input": {"x": "list<float32>[3]"},
        "output": {"y": "float32"},
        "worker": WorkerSpec(kind, this_python(), ("numpy",)),
    }
    return StepSpec(**{**said, **changes})


def sources(factor: float = 2.0) -> dict[str, bytes]:
    """The files of a step that gives `factor` times the sum of x."""
    return {"step.py": SOURCE.replace("FACTOR", str(factor)).encode()}


def index(
    folder: Path,
    files: Mapping[str, bytes],
    steps: list[StepSpec],
    golden: bytes = GOLDEN,
    *,
    name: str = "demo",
    targets: tuple[Target, ...] = (),
    **spec: Any,
) -> Index:
    """The index of a bundle; `files` by path in the bundle. Every python step gets numpy's wheel."""
    paths = {}
    for path, data in files.items():
        paths[path] = folder / "source" / path
        paths[path].parent.mkdir(parents=True, exist_ok=True)
        paths[path].write_bytes(data)
    wheel = numpy_wheel()
    models = [model for step in steps for model in step.every_model]
    wheels = {wheel_path(model.name, wheel.name): wheel for model in models if model.worker}
    chosen = targets or (host_target(),)
    return pack(PipelineSpec(name, steps, **spec), paths, golden, chosen, {target: wheels for target in chosen})


def simple(folder: Path, factor: float = 2.0, golden: bytes = GOLDEN, **how: Any) -> Bundle:
    """A bundle of one step that doubles sums."""
    files = sources(factor)
    digests = {path: Digest.of(data) for path, data in files.items()}
    step = python_step(sha256=folder_sha256(digests))
    return bundles(index(folder, {f"models/prepare/{p}": data for p, data in files.items()}, [step], golden, **how))[0]
