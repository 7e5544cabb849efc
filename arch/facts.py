"""`Facts`: what this machine is, as far as it decides what runs here: processor, C library, memory, accelerator.

Read from /proc, /sys and /etc, which `root` lets tests lay out anew; nothing is executed. What takes writing to a disk
is measured elsewhere (`durable/sync_latency.py`).
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arch.nvidia import Nvidia, read_nvidia

# of all flags those that decide how fast a model runs: vector width, and dot products of small integers
_FLAGS = (
    *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


@dataclass(frozen=True)
class Facts:
    """One machine. Sizes in bytes; None where the machine does not say."""

    machine: str
    processor: str
    cpu_flags: tuple[str, ...]
    cpus: int
    memory_bytes: int | None
    kernel: str
    glibc: str | None
    python: str
    nvidia: Nvidia | None


def read_facts(root: Path = Path("/")) -> Facts:
    """Look around. Never raises: a fact that cannot be read is None or empty."""
    cpuinfo = _fields(_text(root / "proc/cpuinfo"))
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    return Facts(
        machine=platform.machine(),
        processor=_processor(cpuinfo, root),
        cpu_flags=tuple(flag for flag in _FLAGS if flag in flags),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_memory(root),
        kernel=platform.release(),
        glibc=_glibc(),
        python=platform.python_version(),
        nvidia=read_nvidia(root),
    )


def older(version: str, than: str) -> bool:
    """Whether a version of numbers and dots comes before another: `2.28` before `2.36`."""
    return _numbers(version) < _numbers(than)


def _processor(cpuinfo: Mapping[str, str], root: Path) -> str:
    """What it is called: x86 says so itself, boards say it in the device tree."""
    board = _text(root / "proc/device-tree/model").rstrip("\0\n")
    return cpuinfo.get("model name") or board or cpuinfo.get("Hardware") or "unknown"


def _memory(root: Path) -> int | None:
    """The machine's memory, or this container's share where it has a limit (cgroup v2 `memory.max`, v1 below)."""
    match = re.match(r"(\d+) kB", _fields(_text(root / "proc/meminfo")).get("MemTotal", ""))
    limits = [int(match[1]) << 10] if match else []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _text(root / "sys/fs/cgroup" / name).strip()
        limits += [int(text)] if text.isdigit() else []
    return min(limits, default=None)


def _glibc() -> str | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # another C library does not know the name
        return None
    return version if name == "glibc" else None


def _fields(text: str) -> dict[str, str]:
    """`name : value` lines; of a name that comes again, as for each CPU, the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
