"""A docker engine for tests: run in place from pinned Debian packages; nothing is installed.

Needs root, cgroups and overlayfs. It ends only what it started: the daemon's own process group, the emulator that it
registered, and what the daemon mounted below its own folder. That holds when we are told to end by SIGTERM as well; of
a SIGKILL the daemon hears from the kernel (`setpriv --pdeathsig`).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.images.pins import ENGINE, QEMU, Missing, unpacked

_START_S = 90
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ARM_ELF = (
    rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)


class NoEngine(Exception):
    """There can be no engine here; the text says why."""


@dataclass(frozen=True)
class Engine:
    """A running daemon. `environ` is what a child needs to speak to it: program, plugin and socket."""

    socket: Path
    environ: dict[str, str]

    def docker(self, *arguments: str, timeout_s: float = 600) -> str:
        """Run one docker command; its output. Raises AssertionError with what it said when it fails."""
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, env=self.environ, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()


@contextlib.contextmanager
def running(*, containerd_store: bool) -> Iterator[Engine]:
    """Start a daemon for the time of a test. Raises NoEngine where that cannot be."""
    if os.geteuid() or platform.machine() != "x86_64":
        raise NoEngine("a docker engine for tests needs root on x86_64")
    try:
        root = unpacked(ENGINE) / "usr"
    except Missing as error:
        raise NoEngine(f"no docker engine for tests: {error}") from error
    with cleaned_on_sigterm():
        # a short path: a socket's name has at most 107 bytes
        folder = Path(tempfile.mkdtemp(prefix="engine-"))
        try:
            yield from _served(folder, root, containerd_store)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def cleaned_on_sigterm() -> Iterator[None]:
    """Make SIGTERM the exception that Ctrl-C is, so that every `finally` above us runs: pytest takes that for the end,
    and another for a failed test. Only the main thread can.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt("told to end by SIGTERM")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _served(folder: Path, root: Path, containerd_store: bool) -> Iterator[Engine]:
    plugins = folder / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(root / "libexec/docker/cli-plugins/docker-buildx")
    environ = {**os.environ, "PATH": f"{root}/bin:{root}/sbin:{os.environ['PATH']}"}
    ours = {"DOCKER_HOST": f"unix://{folder / 's'}", "DOCKER_CONFIG": str(plugins.parent)}
    engine = Engine(folder / "s", {**environ, **ours})
    (folder / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": containerd_store}}))
    command: list[str | Path] = ["setpriv", "--pdeathsig", "TERM", "--", root / "sbin/dockerd"]
    command += ["--config-file", folder / "daemon.json", "--data-root", folder / "data"]
    command += ["--exec-root", folder / "exec", "--host", ours["DOCKER_HOST"], "--pidfile", folder / "pid"]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    log = (folder / "log").open("w")
    daemon = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(engine, daemon, folder / "log")
        yield engine
    finally:
        log.close()
        _end(daemon)
        _unmount(folder)


def _end(daemon: subprocess.Popen) -> None:
    """End the daemon, and with it the containerd and the containers of its process group."""
    daemon.terminate()
    try:
        daemon.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def _wait(engine: Engine, daemon: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if daemon.poll() is not None:
            break
        with contextlib.suppress(AssertionError):
            engine.docker("version")
            return
        time.sleep(0.2)
    last = log.read_text().strip().splitlines()[-1:]
    raise NoEngine(f"a docker engine does not start here: {last}")


def _unmount(folder: Path) -> None:
    """What the daemon mounted below its own folder and left."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((each for each in mounts if each.startswith(str(folder))), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


@contextlib.contextmanager
def arm_emulation() -> Iterator[None]:
    """Have the kernel run ARM programs by way of qemu 10, inside containers too (flag F). Raises NoEngine where it
    cannot; does nothing where something is registered for them already.
    """
    try:
        program = unpacked(QEMU) / "usr/bin/qemu-aarch64"
    except Missing as error:
        raise NoEngine(f"no emulator: {error}") from error
    with cleaned_on_sigterm(), _binfmt() as table:
        if any(b"b700" in path.read_bytes() for path in table.iterdir() if path.name not in ("register", "status")):
            yield
            return
        name = f"edgepack-arm-{os.getpid()}"
        try:
            (table / "register").write_bytes(b":%s:M::%s:%s:FP" % (name.encode(), _ARM_ELF, str(program).encode()))
        except OSError as error:
            raise NoEngine(f"the kernel takes no emulator for ARM here: {error.strerror}") from error
        try:
            yield
        finally:
            (table / name).write_text("-1")


@contextlib.contextmanager
def _binfmt() -> Iterator[Path]:
    """The kernel's table of formats; mounted for us where nobody has."""
    if (_BINFMT / "register").exists():
        yield _BINFMT
        return
    folder = Path(tempfile.mkdtemp(prefix="binfmt-"))
    try:
        done = subprocess.run(["mount", "-t", "binfmt_misc", "none", str(folder)], capture_output=True, check=False)
        if done.returncode:
            raise NoEngine("the kernel has no binfmt_misc here, which runs ARM programs by way of an emulator")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=False, capture_output=True)
    finally:
        folder.rmdir()
