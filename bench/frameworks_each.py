"""One small model of each framework, from the file that its library saved to the running step: what packaging it takes,
how far it answers like the original, and what a call costs beside the original's own in the same run.

Models are those of `tests/frameworks`. Packaging is done as `edgepack build` does it, with nothing in the cache but
environments and wheels. Calls are made in one thread on one CPU, without doors; CPU time is the best of some rounds.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arch.target import host_target
from bench.frameworks_originals import cpu_us
from bundle.bundle import bundles
from bundle.store import unpack
from columns.columns import Columns
from edgepack.commands.cache import cache_folder
from packager.environments import CLASSIC, HUGGING_FACE, TENSORFLOW, TORCH, Environment, Recipe, ready
from packager.package import Packaged, package
from packager.project import Project
from runtimes.pipeline import LoadedPipeline

COUNTS = (1, 256)
MAKERS = Path(__file__).parents[1] / "tests/frameworks"
_KEPT = ("environments", "interpreters", "wheels", "workers")  # of the user's cache
_ORIGINALS = Path(__file__).with_name("frameworks_originals.py")
_MIB = 1 << 20


@dataclass(frozen=True)
class Subject:
    """A model: what made it, in which environment, where it lies among what was made, how the original is asked."""

    framework: str
    recipe: Recipe
    script: str
    model: str
    form: str
    toml: str = ""


SUBJECTS = (
    Subject("sklearn", CLASSIC, "training.py", "forest", "estimator"),
    Subject("xgboost", CLASSIC, "training.py", "xgb_classes", "estimator"),
    Subject("lightgbm", CLASSIC, "training.py", "lgbm_classes", "estimator"),
    Subject("pytorch", TORCH, "networks.py", "cnn.pth", "torchscript",
            '[steps.input]\nimage = "list<list<list<float32>[8]>[8]>[1]"'),
    Subject("pytorch, float64", TORCH, "networks.py", "wide.pt", "torchscript",
            '[steps.input]\nx = "list<float64>[4]"'),
    Subject("keras", TORCH, "networks.py", "picture.keras", "keras"),
    Subject("tensorflow", TENSORFLOW, "savedmodels.py", "exported", "savedmodel"),
    Subject("tflite", TENSORFLOW, "savedmodels.py", "float.tflite", "tflite"),
    Subject("tflite, dynamic range", TENSORFLOW, "savedmodels.py", "dynamic.tflite", "tflite"),
    Subject("tflite, int8", TENSORFLOW, "savedmodels.py", "int8.tflite", "tflite"),
    Subject("hugging-face", HUGGING_FACE, "pipelines.py", "text-classification", "hugging_face",
            'framework = "hugging-face-text-classification"'),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was found of one. `cpu_us` by count of rows; `worker` steps are asked from here, so theirs is wall time."""

    framework: str
    model: str
    runtime: str
    wall_s: float
    cpu_s: float
    parity: dict[str, Any]
    before_bytes: int
    after_bytes: int
    native_us: dict[str, float]
    original_us: dict[str, float]
    environment: str
    environment_mib: float
    wheels_mib: float | None = None
    clock: str = "CPU"
    ratio: dict[str, float] = field(default_factory=dict)


def measure_each(say: Any) -> list[Measured]:
    """All of them, one after another; `say` is told each as it ends."""
    found = []
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as work, on_one_cpu():
        for subject in SUBJECTS:
            environment = ready(subject.recipe, cache_folder(os.environ), os.environ, notice=say)
            made = _made(subject, environment, Path(work))
            found.append(_measured(subject, environment, made, Path(work) / "projects" / subject.model))
            say(f"  {subject.framework}: done")
    return found


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """This process and its children, so that no library adds threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _made(subject: Subject, environment: Environment, work: Path) -> Path:
    """What the script of the tests makes, once for all its subjects."""
    folder = work / subject.script
    if not folder.is_dir():
        folder.mkdir()
        names = [each.model for each in SUBJECTS if each.script == subject.script]
        arguments = names if subject.script in ("training.py", "pipelines.py") else []
        command = [environment.python, MAKERS / subject.script, folder, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"'{subject.script}' makes no models (code {done.returncode}): {done.stderr[-2000:]}")
    return folder / subject.model


def _measured(subject: Subject, environment: Environment, model: Path, folder: Path) -> Measured:
    golden = model / "golden.json"
    rows = '[golden]\nrows = "golden.json"\n' if golden.is_file() else ""
    folder.mkdir(parents=True)
    copy = folder / model.name
    if model.is_dir():
        shutil.copytree(model, copy, ignore=shutil.ignore_patterns("golden.json"))
    else:
        shutil.copyfile(model, copy)
    if rows:
        shutil.copyfile(golden, folder / "golden.json")
    (folder / "edgepack.toml").write_text(
        f'[pipeline]\nname = "tried"\n[[steps]]\nname = "model"\nmodel = "{model.name}"\n{subject.toml}\n{rows}'
    )
    packaged, wall_s, cpu_s = _packaged(folder)
    bundle = unpack(bundles(packaged.index)[0], folder / "bundle", link=True)
    step = packaged.spec.steps[0]
    native, original, clock = _calls(subject, environment, packaged, bundle, copy)
    parity = packaged.parity.get("steps", {}).get(step.name, packaged.parity)
    worker = packaged.parity.get("environments")
    wheels = sum(path.stat().st_size for path in bundle.rglob("*.whl")) / _MIB if worker else None
    return Measured(
        framework=subject.framework,
        model=subject.model,
        runtime=step.runtime,
        wall_s=wall_s,
        cpu_s=cpu_s,
        parity={name: parity[name] for name in ("rows", "max_abs", "max_rel", "label_flips")},
        before_bytes=_size(copy),
        after_bytes=_size(bundle / step.model),
        native_us=native,
        original_us=original,
        environment=environment.kept.title,
        environment_mib=environment.kept.size_bytes / _MIB,
        wheels_mib=wheels,
        clock=clock,
        ratio={count: original[count] / native[count] for count in native},
    )


def _packaged(folder: Path) -> tuple[Packaged, float, float]:
    """Package with a cache that holds no conversion; the seconds it took, on the clock and of CPUs."""
    cache = folder.with_name(f"{folder.name}.cache")
    cache.mkdir()
    for name in _KEPT:
        kept = cache_folder(os.environ) / name
        kept.mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(kept)
    start, cpu = time.monotonic(), _cpu_s()
    found = package(Project.open(folder), [host_target()], cache=cache)
    return found, time.monotonic() - start, _cpu_s() - cpu


def _cpu_s() -> float:
    """Of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _calls(
    subject: Subject, environment: Environment, packaged: Packaged, bundle: Path, model: Path
) -> tuple[dict[str, float], dict[str, float], str]:
    """Microseconds of a call by count of rows: of the step as it runs, of the original, and on which clock."""
    loaded = LoadedPipeline.open(bundle, cache_folder(os.environ) / "workers")
    try:
        golden = loaded.bundle.golden().inputs
        rows = Columns.concat([golden] * -(-max(COUNTS) // golden.rows))
        asked = [(str(count), rows.slice(0, count)) for count in COUNTS]
        clock = "wall" if loaded.workers else "CPU"
        measure = wall_us if loaded.workers else cpu_us
        native = {count: measure(lambda few=few: loaded.infer(few)) for count, few in asked}  # type: ignore[misc]
    finally:
        loaded.close()
    saved = bundle.parent / "rows.npz"
    np.savez(
        saved, **{name: array.astype(str) if array.dtype == object else array for name, array in rows.arrays.items()}
    )
    methods = ["predict", "predict_proba"][: len(packaged.spec.steps[0].output)]
    order = {"form": subject.form, "model": str(model), "rows": str(saved), "methods": methods, "counts": COUNTS}
    command = [environment.python, _ORIGINALS, json.dumps(order)]
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    if done.returncode:
        sys.exit(f"the original of {subject.framework} does not answer: {done.stderr[-500:]}")
    return native, json.loads(done.stdout.splitlines()[-1]), clock


def wall_us(call: Any) -> float:
    """Microseconds on the clock, for a step in a process of its own: the best of some calls."""
    call()
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def _size(path: Path) -> int:
    return (
        sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else path.stat().st_size
    )


def print_each(found: list[Measured]) -> None:
    """A line each."""
    print(
        f"{'':22}{'runs in':8}{'packaged in':>16}{'parity':>27}{'bytes':>18}{'1 row, µs':>21}{'256 rows, µs':>24}"
        f"  environment"
    )
    for each in found:
        parity = each.parity
        calls = [f"{each.native_us[count]:,.0f} of {each.original_us[count]:,.0f}" for count in each.native_us]
        ratios = [f"{each.ratio[count]:.1f}x" for count in each.ratio]
        wheels = f", worker's wheels {each.wheels_mib:.0f} MiB" if each.wheels_mib else ""
        print(
            f"{each.framework:22}{each.runtime:8}{each.wall_s:6.1f} s ({each.cpu_s:.1f} CPU)"
            f"{parity['rows']:5} rows {parity['max_rel']:8.1e} {parity['label_flips']} flips"
            f"{each.before_bytes:9,} →{each.after_bytes:8,}"
            f"{calls[0]:>14} {ratios[0]:>6}{calls[1]:>17} {ratios[1]:>6}"
            f"  {each.environment} {each.environment_mib:,.0f} MiB{wheels}{' (wall)' if each.clock == 'wall' else ''}"
        )


def as_objects(found: list[Measured]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [asdict(each) for each in found]
