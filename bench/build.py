"""The builders side by side in one run, for ARM on this machine: direct, docker buildx with a cross stage, docker
buildx with pip under an emulator; each cold and after a change of the model, with and without `.pyc`.

Wheels and Debian packages are there beforehand. Needs root for an engine of its own; without one only the direct
builder is measured, and the reason printed. CPU and memory of docker are those of its daemons and what they started.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.build_once import pip_wheel
from bench.builds import EXAMPLE, change_model
from bench.table import Figure
from tests.images.engine import Engine, NoEngine, arm_emulation, running

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Built:
    """One build and its cost; `blobs` are those of the image by digest, with their size."""

    seconds: float
    cpu_s: float
    peak_mb: float
    blobs: Mapping[str, int]


def measure_build() -> list[Figure]:
    """All builders that can run here."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        project = Path(place) / "wine-line"
        shutil.copytree(EXAMPLE, project)
        _once(project, "direct", bytecode=True, cached=True, engine=None)  # downloads what is missing
        figures = [each for bytecode in (True, False) for each in _measured(project, "direct", bytecode, None)]
        try:
            engine = stack.enter_context(_engine())
            stack.enter_context(arm_emulation())
        except NoEngine as error:
            print(f"bench: only the direct builder is measured: {error}")
            return figures
        builders = ["cross", "emulated"] if pip_wheel() else ["cross"]
        for builder in builders:
            for bytecode in (True, False):
                figures += _measured(project, builder, bytecode, engine)
    return [*figures, *_ratios(figures)]


def _measured(project: Path, builder: str, bytecode: bool, engine: Engine | None) -> Iterator[Figure]:
    name = f"{'direct' if builder == 'direct' else f'buildx {builder}'}, {'with' if bytecode else 'without'} .pyc"
    if engine:
        engine.docker("buildx", "prune", "--all", "--force")
    else:  # what was made before is in the cache for the second build only
        _once(project, builder, bytecode=bytecode, cached=True, engine=None)
    cold = _once(project, builder, bytecode=bytecode, cached=engine is not None, engine=engine)
    change_model(project)
    changed = _once(project, builder, bytecode=bytecode, cached=True, engine=engine)
    yield Figure(f"{name}: cold", cold.seconds, "s")
    yield Figure(f"{name}: cold, CPU", cold.cpu_s, "s")
    yield Figure(f"{name}: cold, peak memory", cold.peak_mb, "MB")
    yield Figure(f"{name}: model changed", changed.seconds, "s")
    yield Figure(f"{name}: model changed, CPU", changed.cpu_s, "s")
    yield Figure(f"{name}: image", sum(cold.blobs.values()) / 1e6, "MB")
    sent = {digest: size for digest, size in changed.blobs.items() if digest not in cold.blobs}
    yield Figure(f"{name}: model changed, blobs to push", len(sent), "")
    yield Figure(f"{name}: model changed, bytes to push", sum(sent.values()) / 1e3, "kB")


def _once(project: Path, builder: str, *, bytecode: bool, cached: bool, engine: Engine | None) -> Built:
    order = {"source": str(project), "output": str(project.parent / "out.tar"), "builder": builder}
    command = [sys.executable, "-m", "bench.build_once", json.dumps({**order, "bytecode": bytecode, "cached": cached})]
    daemons = _daemons(engine)
    before = sum(map(_cpu_s, daemons))
    for pid in daemons:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here (proc(5))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=engine.environ if engine else os.environ, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"bench: the {builder} build ended with {process.returncode}")
    cpu_s = usage.ru_utime + usage.ru_stime + sum(map(_cpu_s, daemons)) - before
    peak_mb = max([usage.ru_maxrss / 1024, *map(_peak_mb, daemons)])
    found = json.loads(said)
    return Built(found["seconds"], cpu_s, peak_mb, found["blobs"])


@contextmanager
def _engine() -> Iterator[Engine]:
    with running(containerd_store=True) as engine:
        yield engine


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
    """How many times faster direct is, like against like."""
    by_name = {figure.name: figure.value for figure in figures}
    for builder, promised in (("cross", "≥ 3 x"), ("emulated", "≥ 10 x")):
        for how in ("with", "without"):
            for when in ("cold", "model changed"):
                other = by_name.get(f"buildx {builder}, {how} .pyc: {when}")
                if other:
                    ratio = other / by_name[f"direct, {how} .pyc: {when}"]
                    goal = promised if (how, when) == ("with", "cold") else ""
                    yield Figure(f"direct against buildx {builder}, {how} .pyc, {when}", ratio, "x", goal)
