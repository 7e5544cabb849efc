"""What a process costs: CPU seconds and memory, as the kernel counts them (proc(5))."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_SCHEDULED = 2  # of a process's CPU clock: clock_getcpuclockid(3), which Python has for threads only


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds (user and system, children included) of a finished command."""

    seconds: float
    cpu_s: float
    output: str


def run(command: list[str], env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end and return its cost. Raises SystemExit with its last words if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, done.stdout)


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a running process has used so far, all threads, to the nanosecond (proc(5) counts in 10 ms)."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def tree_cpu_seconds(pid: int) -> float:
    """CPU seconds that a running process and its children have used so far."""
    return sum(cpu_seconds(each) for each in (pid, *_children(pid)))


def pss_mib(pid: int) -> float:
    """Proportional set size of a process and its children, in MiB."""
    total = 0
    for each in (pid, *_children(pid)):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found
