"""What `edgepack-agent doctor` looks at: whether this device can do what its image was built for.

It changes nothing but a small file that it writes and removes to time the disk. It may run beside the agent.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arch.facts import Facts, older, read_facts
from arch.finding import Finding, examine
from arch.nvidia import Nvidia, l4t_objection
from arch.options import Options
from arch.providers import CPU, wanted_providers
from durable.sync_latency import SyncLatency, measure_sync
from edge_agent.config import Config, target_of
from edge_agent.folders import Folders
from edge_agent.state import State
from edge_agent.status import choices
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed

_GLIBC = "2.28"  # of the oldest wheels that the agent itself is made of
_SLOW_MS = 100.0  # a commit that takes longer holds up every answer
_JETPACKS = ("6", "7")
_EPOCH_S = 1_735_689_600  # 2025-01-01: a clock before that was never set


@dataclass(frozen=True)
class Checkup:
    """All that was found out."""

    target: str
    facts: Facts
    disk: Mapping[str, int]
    sync: SyncLatency | None
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """One object for JSON."""
        return {
            "target": self.target,
            "facts": asdict(self.facts) | {"jetpack": self.facts.nvidia.jetpack if self.facts.nvidia else None},
            "disk": dict(self.disk),
            "sync": asdict(self.sync) if self.sync else None,
            "checks": [each.to_dict() for each in self.findings],
        }


def check_up(
    config: Config, environ: Mapping[str, str], now_s: float | None = None, facts: Facts | None = None
) -> Checkup:
    """Look at this device, or take its `facts` as they are given. Raises BadInput when the image was built for another
    architecture.
    """
    target, facts = target_of(config), facts or read_facts()
    folder = _nearest(config.data)
    sync = _sync(folder)
    usage = shutil.disk_usage(folder)
    findings = (
        examine("glibc", lambda: _glibc(facts)),
        examine("data folder", lambda: _writable(config.data, folder)),
        examine("room", lambda: _room(usage.free, config.reserve_bytes)),
        _speed(sync),
        examine("clock", lambda: _clock(time.time() if now_s is None else now_s), needed=False),
        *_providers(environ, facts),
        *_models(Folders(config.data).state),
        *_jetson(environ.get("EDGEPACK_L4T"), facts),
    )
    disk = {"total_bytes": usage.total, "free_bytes": usage.free}
    return Checkup(str(target), facts, disk, sync, findings)


def _nearest(path: Path) -> Path:
    """The folder itself, or the one above it that is there."""
    return next((each for each in (path.absolute(), *path.absolute().parents) if each.is_dir()), Path("/"))


def _sync(folder: Path) -> SyncLatency | None:
    try:
        return measure_sync(folder)
    except OSError:
        return None  # the finding on the data folder says why


def _glibc(facts: Facts) -> str:
    if facts.glibc is None:
        raise BadInput(f"the C library is not glibc: the wheels of agent and runtimes need glibc {_GLIBC} or newer")
    if older(facts.glibc, _GLIBC):
        raise BadInput(f"glibc is {facts.glibc}: agent and runtimes need {_GLIBC} or newer, as the images have it")
    return facts.glibc


def _writable(data: Path, folder: Path) -> str:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(
            f"'{folder}' cannot be written by user {os.geteuid()}: give it to that user, or set EDGEPACK_DATA"
        )
    return str(data)


def _room(free: int, reserve: int) -> str:
    if free < reserve:
        raise RuntimeFailed(f"{free} bytes are free, {reserve} are kept in reserve: no bundle can come; make room")
    return f"{free / 1e9:.1f} GB free"


def _speed(sync: SyncLatency | None) -> Finding:
    if sync is None:
        return Finding("sync latency", False, "not measured: the data folder cannot be written", needed=False)
    said = f"{sync.median_ms:g} ms, worst {sync.worst_ms:g} ms of {sync.writes}"
    fix = 'a commit waits as long: use another disk, or [log] durability = "relaxed"'
    return Finding("sync latency", sync.median_ms <= _SLOW_MS, said, fix, needed=False)


def _clock(now_s: float) -> str:
    said = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if now_s < _EPOCH_S:
        raise RuntimeFailed(f"it says {said}, which is past: times in the log are wrong until it is set")
    return said


def _providers(environ: Mapping[str, str], facts: Facts) -> list[Finding]:
    """What models would compute on, and why not on what the image was built for."""
    wanted = wanted_providers(environ.get("EDGEPACK_PROVIDERS"))
    try:
        import onnxruntime

        from runtimes.providers import choose_here
    except ImportError:
        return [Finding("onnxruntime", False, "not installed: ONNX models do not run here", needed=False)]
    choice = choose_here(onnxruntime, environ, lambda: facts.nvidia)
    told = Options.read(environ) if choice.used != (CPU,) else Options()
    found = [Finding("provider", True, _told(name, told)) for name in wanted if name in choice.used]
    return found + [Finding("provider", False, f"{name} is not used: {why}") for name, why in choice.skipped.items()]


def _told(name: str, options: Options) -> str:
    """A provider with what it is told, but for what depends on the model."""
    given = ", ".join(f"{key} {value}" for key, value in options.options.get(name, {}).items() if "{" not in value)
    return f"{name} ({given})" if given else name


def _models(state: Path) -> list[Finding]:
    """What the models that were loaded last compute on: a provider that is here may still take none of a model."""
    if not state.is_file():
        return []
    try:
        opened = State.read(state)
    except EdgepackError as error:
        return [Finding("state", False, str(error))]
    try:
        noted = [
            (f"'{name}', model '{model}'", choice)
            for name, each in choices(opened.pulse()).items()
            for model, choice in each.items()
        ]
    finally:
        opened.close()
    return [
        *(Finding("model", True, f"pipeline {where} computes on {choice}", needed=False) for where, choice in noted),
        *(
            Finding("model", False, f"pipeline {where} is not on {name}: {why}", needed=False)
            for where, choice in noted
            for name, why in choice.skipped.items()
        ),
    ]


def _jetson(image: str | None, facts: Facts) -> list[Finding]:
    """Whether this Jetson's release is one that images are built for, and goes with that of its image."""
    nvidia, found = facts.nvidia, []
    if nvidia and nvidia.l4t:
        found.append(examine("jetpack", lambda: _jetpack(nvidia)))
    if image:
        host = nvidia.l4t if nvidia else None
        objection = l4t_objection(image, host)
        found.append(Finding("l4t", objection is None, objection or f"{host}, the image is for {image}"))
    return found


def _jetpack(nvidia: Nvidia) -> str:
    if nvidia.jetpack not in _JETPACKS:
        known = f"JetPack {nvidia.jetpack}" if nvidia.jetpack else "of no JetPack that is known here"
        raise BadInput(
            f"L4T {nvidia.l4t} is {known}: images are built for JetPack {' and '.join(_JETPACKS)}, older ones have a "
            "Python and a CUDA that nothing is published for; flash a newer one"
        )
    return f"{nvidia.jetpack} (L4T {nvidia.l4t})"
