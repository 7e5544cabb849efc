"""The builders side by side in one run, for ARM on this machine: direct, docker buildx with a cross stage, docker
buildx with pip under an emulator; each cold and after a change of the model, with and without `.pyc`.

    python -m bench build

Wheels and Debian packages are there beforehand. Cold, docker has the base's layer already and the direct builder has
not. The builders take turns and the best of their rounds counts; the emulated one has one round, for it takes minutes.
Needs root for an engine of its own; without one only the direct builder is measured, and the reason printed. CPU and
memory of docker are those of its daemons and of what they started.
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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench.build_once import pip_wheel
from bench.builds import EXAMPLE, change_model
from bench.table import Figure
from tests.images.engine import Engine, NoEngine, arm_emulation, running

ROUNDS = {"direct": 3, "cross": 2, "emulated": 1}
LONGEST_S = 900  # of one build
_NAMES = {"direct": "direct", "cross": "buildx cross", "emulated": "buildx emulated"}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """One build: seconds from the start of its process to the end, and what it took. `blobs` are those of the image by
    digest, with their size.
    """

    seconds: float
    cpu_s: float
    peak_mb: float
    blobs: Mapping[str, int]


@dataclass(frozen=True)
class Round:
    """A build without any layer made before, and the next one with another model."""

    cold: Cost
    changed: Cost


def measure_build() -> list[Figure]:
    """All builders that can run here."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        project = Path(place) / "wine-line"
        shutil.copytree(EXAMPLE, project)
        _once(project, "direct", bytecode=True, cached=True, engine=None)  # downloads what is missing
        builders, engine = ["direct"], None
        try:
            engine = stack.enter_context(running(containerd_store=True))
            stack.enter_context(arm_emulation())
            builders += ["cross", *(["emulated"] if pip_wheel() else [])]
        except NoEngine as error:
            print(f"bench: only the direct builder is measured: {error}")
        figures: list[Figure] = []
        for bytecode in (True, False):
            rounds = {builder: list(_rounds(project, builder, bytecode, engine)) for builder in builders}
            figures += [each for builder in builders for each in _figures(_name(builder, bytecode), rounds[builder])]
    return [*figures, *_ratios(figures)]


def _rounds(project: Path, builder: str, bytecode: bool, engine: Engine | None) -> Iterator[Round]:
    for number in range(ROUNDS[builder]):
        if builder == "direct":  # what was made before is in the cache for the second build only
            _once(project, builder, bytecode=bytecode, cached=True, engine=None)
            cold = _once(project, builder, bytecode=bytecode, cached=False, engine=None)
        else:
            assert engine is not None
            engine.docker("buildx", "prune", "--all", "--force")
            cold = _once(project, builder, bytecode=bytecode, cached=True, engine=engine)
        change_model(project)
        changed = _once(project, builder, bytecode=bytecode, cached=True, engine=engine)
        said = f"cold {cold.seconds:.1f} s, model changed {changed.seconds:.1f} s"
        print(f"{_name(builder, bytecode)}, round {number + 1}: {said}", file=sys.stderr, flush=True)
        yield Round(cold, changed)


def _name(builder: str, bytecode: bool) -> str:
    return f"{_NAMES[builder]}, {'with' if bytecode else 'without'} .pyc"


def _figures(name: str, rounds: list[Round]) -> Iterator[Figure]:
    """The best of the rounds, with the goals where they are the direct builder's."""
    goals = {"cold": "≤ 6 s", "changed": "≤ 1 s", "peak": "≤ 300 MB", "image": "≤ 110 MB"}
    if not name.startswith("direct, with "):
        goals = {}
    cold, changed = [each.cold for each in rounds], [each.changed for each in rounds]
    yield Figure(f"{name}: cold", min(each.seconds for each in cold), "s", goals.get("cold", ""))
    yield Figure(f"{name}: cold, CPU", min(each.cpu_s for each in cold), "s")
    yield Figure(f"{name}: cold, peak memory", max(each.peak_mb for each in cold), "MB", goals.get("peak", ""))
    yield Figure(f"{name}: model changed", min(each.seconds for each in changed), "s", goals.get("changed", ""))
    yield Figure(f"{name}: model changed, CPU", min(each.cpu_s for each in changed), "s")
    yield Figure(f"{name}: image", sum(cold[-1].blobs.values()) / 1e6, "MB", goals.get("image", ""))
    sent = {digest: size for digest, size in changed[-1].blobs.items() if digest not in cold[-1].blobs}
    yield Figure(f"{name}: model changed, blobs to push", len(sent), "")
    yield Figure(f"{name}: model changed, bytes to push", sum(sent.values()) / 1e3, "kB")


def _once(project: Path, builder: str, *, bytecode: bool, cached: bool, engine: Engine | None) -> Cost:
    order = {"source": str(project), "output": str(project.parent / "out.tar"), "builder": builder}
    command = [sys.executable, "-m", "bench.build_once", json.dumps({**order, "bytecode": bytecode, "cached": cached})]
    daemons = _daemons(engine if builder != "direct" else None)
    before = sum(map(_cpu_s, daemons))
    for pid in daemons:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here (proc(5))
    environ = engine.environ if engine else os.environ
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, env=environ)
        usage = _ended(process, builder)
        seconds = time.perf_counter() - begun
        said.seek(0)
        blobs = json.load(said)["blobs"]
    cpu_s = usage.ru_utime + usage.ru_stime + sum(map(_cpu_s, daemons)) - before
    peak_mb = max([usage.ru_maxrss / 1024, *map(_peak_mb, daemons)])
    return Cost(seconds, cpu_s, peak_mb, blobs)


def _ended(process: subprocess.Popen[bytes], builder: str) -> resource.struct_rusage:
    """Wait for a build's end. It does not outlive us, nor its time."""
    deadline = time.monotonic() + LONGEST_S
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: the {builder} build took more than {LONGEST_S} s")
            time.sleep(0.005)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: the {builder} build ended with {process.returncode}")
    return usage


def _daemons(engine: Engine | None) -> list[int]:
    """dockerd and its containerd."""
    if engine is None:
        return []
    first = int((engine.socket.parent / "pid").read_text())
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    found = [first, *map(int, children)]
    return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() in ("dockerd", "containerd")]


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _ratios(figures: list[Figure]) -> Iterator[Figure]:
    """How many times direct's seconds the others take, like against like. CPU seconds are the steady ones: on a busy
    machine what ran at another moment met another load.
    """
    by_name = {figure.name: figure.value for figure in figures}
    goals = {("cross", "with", "cold"): "≥ 3 x", ("emulated", "with", "cold"): "≥ 10 x"}
    for builder, how, when in product(("cross", "emulated"), ("with", "without"), ("cold", "model changed")):
        for unit in ("", ", CPU"):
            other = by_name.get(f"{_NAMES[builder]}, {how} .pyc: {when}{unit}")
            if other:
                ratio = other / by_name[f"direct, {how} .pyc: {when}{unit}"]
                name = f"direct against {_NAMES[builder]}, {how} .pyc: {when}{unit}"
                yield Figure(name, ratio, "x", goals.get((builder, how, when), ""))
