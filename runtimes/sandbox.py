"""`Sandbox`: what a child process may do, and how it is started so that it can do nothing else.

A child binds itself before it imports anything that is not ours (`shim/edgepack_worker/confine.py`): limits, no new
privileges, no capabilities, Landlock, seccomp. What the kernel lacks is left out and missing from the level, which the
child reports; the rest still holds. One mechanism for workers and for trials.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from runtimes.shim.edgepack_worker.confine import level_here

SHIM = Path(__file__).with_name("shim")

_BOOT = (
    "import sys, json\n"
    "order = json.loads(sys.argv[1])\n"
    "sys.path.insert(0, order['shim'])\n"
    "from edgepack_worker.start import start\n"
    "start(order)\n"
)
# NVIDIA, its Jetsons, AMD, Intel and the kernel's own class of accelerators
_NODES = ("nvidia*", "nvidia-caps/*", "nvhost*", "nvmap", "nvgpu", "nvsciipc", "dri/*", "kfd", "accel/*")
_DRIVERS = ("/proc/driver", "/proc/devices", "/proc/modules", "/sys", "/usr/local", "/etc/OpenCL", "/etc/vulkan")
_KEPT_VARIABLES = (
    *("TZ", "LD_LIBRARY_PATH", "NVIDIA_TF32_OVERRIDE"),
    *("EDGEPACK_PROVIDERS", "EDGEPACK_PROVIDER_OPTIONS", "EDGEPACK_L4T"),
)


@dataclass(frozen=True)
class Sandbox:
    """What a child may reach and use. Paths that do not exist are passed over.

    The child's own interpreter, its standard library and the system's libraries are readable without being named.
    """

    read: tuple[Path, ...] = ()  # files and folders, with all below
    write: tuple[Path, ...] = ()  # folders in which it may also make, change and delete
    devices: tuple[Path, ...] = ()  # nodes of an accelerator: read, write and ioctl
    network: bool = False
    programs: bool = False  # may start the interpreter and its like again: a trial that has workers of its own
    memory_bytes: int | None = None  # private memory (RLIMIT_DATA)
    address_bytes: int | None = 16 << 30  # address space: native libraries reserve far more than they use
    # the largest file it may write; not 0, because emulators (qemu-user) keep what they show as /proc/cpuinfo in one
    file_bytes: int = 64 << 10
    open_files: int = 256
    processes: int = 256  # threads included, on top of those there are; holds where the child is not root
    cpu_s: int | None = None  # of all its threads together, in its whole life
    drop_user: bool = False  # as root: become nobody, where nobody may read what it must
    oom_score: int = 500  # 0 … 1000: how gladly the kernel ends it when memory runs out

    def and_read(self, *paths: Path) -> Sandbox:
        """The same with more to read."""
        return replace(self, read=(*self.read, *paths))

    def command(self, module: str, arguments: Sequence[str], path: Sequence[str | Path], python: str = "") -> list[str]:
        """The command of a child that binds itself, then calls `main(*arguments)` of a module found on `path`.

        `python` is the interpreter, by default the one that runs here.
        """
        order = {
            "shim": str(SHIM),
            "policy": self._policy(path),
            "path": [str(part) for part in path],
            "module": module,
            "arguments": list(arguments),
        }
        return [python or sys.executable, "-I", "-S", "-B", "-c", _BOOT, json.dumps(order)]

    def _policy(self, path: Sequence[str | Path]) -> dict[str, object]:
        said = asdict(self)
        for key in ("write", "devices"):
            said[key] = [str(Path(each).resolve()) for each in said[key]]
        said["read"] = [str(Path(each).resolve()) for each in (*self.read, SHIM, *path)]
        return said


def accelerator_nodes() -> tuple[Path, ...]:
    """The device nodes of accelerators that this machine has."""
    return tuple(sorted(path for pattern in _NODES for path in Path("/dev").glob(pattern)))


def for_accelerators(sandbox: Sandbox) -> Sandbox:
    """The same with what drivers need, on a machine that has an accelerator; drivers reserve terabytes of addresses."""
    nodes = accelerator_nodes()
    if not nodes:
        return sandbox
    read = (*sandbox.read, *(Path(path) for path in _DRIVERS))
    return replace(sandbox, devices=(*sandbox.devices, *nodes), read=read, address_bytes=None)


def clean_environment(scratch: Path | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables of a child: none of ours but time zone and library path."""
    place = {name: str(scratch) for name in ("HOME", "TMPDIR")} if scratch else {}
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **kept, **place, **(more or {})}


def import_path() -> list[str]:
    """What a child of our own code imports from: our rooms, then this process's path; never the folder it stands in."""
    rooms = str(Path(__file__).resolve().parent.parent)
    return [rooms, *(part for part in sys.path if part not in ("", rooms))]


@lru_cache(maxsize=1)
def level_of_this_kernel() -> str:
    """What a sandbox is made of on this machine, as children report it: `landlock-7+seccomp+rlimits`."""
    return level_here()
