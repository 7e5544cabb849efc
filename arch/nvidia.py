"""NVIDIA's part of a machine: driver, CUDA release, device nodes, and the L4T release of a Jetson.

A container sees the host's driver through /proc and through libcuda, which its runtime mounts; so what is missing here
is mostly a flag of `docker run` (`--gpus all`, `--runtime nvidia`).
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

_JETPACKS = {"35": "5", "36": "6", "38": "7", "39": "7"}  # L4T major → JetPack
_CARD = re.compile(r"nvidia\d+")
_TEGRA_NODES = ("nvhost-gpu", "nvgpu/igpu0", "nvmap")
_DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
_L4T = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_SPLIT = (36, 4)  # JetPack 6: containers of L4T before 36.4 and hosts from then on do not go together, nor the reverse


@dataclass(frozen=True)
class Nvidia:
    """What is there. `driver` and `cuda` are versions as NVIDIA writes them; `cuda` is the newest the driver speaks."""

    devices: tuple[str, ...]
    driver: str | None
    cuda: str | None
    l4t: str | None

    @property
    def jetpack(self) -> str | None:
        """The JetPack that an L4T release belongs to."""
        return _JETPACKS.get((self.l4t or "").partition(".")[0])


def read_nvidia(root: Path = Path("/")) -> Nvidia | None:
    """Look for it; None on a machine that has nothing of NVIDIA's."""
    devices = _devices(root / "dev")
    driver = _DRIVER.search(_text(root / "proc/driver/nvidia/version"))
    l4t = _L4T.search(_text(root / "etc/nv_tegra_release"))
    if not devices and not driver and not l4t:
        return None
    cuda = driver_cuda() if root == Path("/") else None
    return Nvidia(devices, driver[1] if driver else None, cuda, f"{l4t[1]}.{l4t[2]}" if l4t else None)


def driver_cuda() -> str | None:
    """The newest CUDA that this machine's driver speaks; None without one. Asks the driver's library, no device."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def l4t_objection(image: str, host: str | None) -> str | None:
    """Why a container made for one L4T release does not run on a host of another; None where it does."""
    if host is None:
        return f"the image is for L4T {image}, and this host does not say that it is a Jetson (/etc/nv_tegra_release)"
    mine, its = _release(image), _release(host)
    if mine[:1] != its[:1]:
        return f"the image is for L4T {image}, this host has {host}: build it on the base of this host's JetPack"
    if mine[:1] == _SPLIT[:1] and len(mine) > 1 and (mine[:2] < _SPLIT) != (its[:2] < _SPLIT):
        return f"the image is for L4T {image}, this host has {host}: releases before and from 36.4 do not mix"
    return None


def _devices(folder: Path) -> tuple[str, ...]:
    cards = [path.name for path in folder.glob("nvidia*") if _CARD.fullmatch(path.name)]
    return tuple(sorted([*cards, *(name for name in _TEGRA_NODES if (folder / name).exists())]))


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
