"""How many CPUs this process may use: its affinity mask, cut by the quota of its container.

onnxruntime by itself looks at the mask and not at the quota; with more threads than the quota allows, the
kernel halts all of them for the rest of each period.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """The number of threads that can run at once here, at least 1."""
    available = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_v2(folder) for folder in _cgroup_folders(cgroups, own)) if quota]
    quotas.append(_quota_v1(cgroups / "cpu") or available)
    return max(1, min(available, math.ceil(min(quotas))))


_threads: ContextVar[int | None] = ContextVar("threads", default=None)


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Have engines that are loaded meanwhile compute with so many threads; None: with as many as there are CPUs."""
    before = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(before)


def engine_threads() -> int:
    """How many threads an engine that is loaded now computes with."""
    return _threads.get() or usable_cpus()


def share_of_threads(cpus: float, replicas: int) -> int:
    """How many threads each of several engine processes computes with: its part of what a pipeline asks for."""
    return _threads.get() or max(1, int(min(cpus, usable_cpus()) // replicas))


def _cgroup_folders(cgroups: Path, own: Path) -> list[Path]:
    """The folders of our cgroup and all above it: the tightest quota of them holds (cgroup v2, "cpu.max")."""
    lines = _read(own).splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "/").strip("/")
    folder = cgroups / path
    return [each for each in (folder, *folder.parents) if each == cgroups or cgroups in each.parents]


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
