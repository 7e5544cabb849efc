"""A docker engine for tests: unpacked from pinned Debian packages into a folder and run there; nothing is installed.

Needs root, cgroups and overlayfs. It ends only what it started: the daemon's own process group.
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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from buildx.archive import DebianArchive
from buildx.debian import Package, read_deb
from buildx.mirror import APT, find_mirror
from buildx.report import Quiet
from edgepack.errors import EdgepackError

# release, package, version, sha256: runc of bookworm, because a newer one needs a newer glibc than bookworm's
PINS = (
    (
        "trixie",
        "docker.io",
        "26.1.5+dfsg1-9+deb13u1",
        "142fe32f839a20720b2e6074b8d28d883b01bc45345f7315586b0c2d348dae87",
    ),
    (
        "trixie",
        "docker-cli",
        "26.1.5+dfsg1-9+deb13u1",
        "e78ac35b7a21652546ca1a739f63e4f31fe52e4385a9baf7020be400c594f23d",
    ),
    (
        "trixie",
        "containerd",
        "1.7.24~ds1-6+deb13u1",
        "ed708deb96fe476a3bce4efa5c0538dfbcf717ab9a7c7944ba7260342c25899c",
    ),
    ("bookworm", "runc", "1.1.5+ds1-1+deb12u1", "a00351f8c0318de0b424ecf5cd0fdb69880a89f3511cae4f6fff7de3e57881c5"),
)
_START_S = 40


class NoEngine(Exception):
    """There can be no engine here; the text says why."""


@dataclass(frozen=True)
class Engine:
    """A running daemon, spoken to through its own command line."""

    program: Path
    socket: Path

    def docker(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run one docker command; its output. Raises AssertionError with what it said when it fails."""
        environ = {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.socket.parent),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, env=environ, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()


@contextlib.contextmanager
def running(*, containerd_store: bool) -> Iterator[Engine]:
    """Start a daemon for the time of a test. Raises NoEngine where that cannot be."""
    if os.geteuid() or platform.machine() != "x86_64":
        raise NoEngine("a docker engine for tests needs root on x86_64")
    # a short path: a socket's name has at most 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        root = _unpacked(folder / "root")
        yield from _served(folder, root, containerd_store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpacked(root: Path) -> Path:
    cache = platformdirs.user_cache_path("edgepack") / "debian"
    try:
        archive = DebianArchive(find_mirror(os.environ, APT), cache, Quiet())
        for release, name, version, sha256 in PINS:
            _unpack(archive.packages([_package(archive, release, name, version, sha256)])[0], root)
    except EdgepackError as error:
        raise NoEngine(f"no docker engine for tests: {error}") from error
    return root / "usr"


def _package(archive: DebianArchive, release: str, name: str, version: str, sha256: str) -> Package:
    found = archive.index(release, "amd64").find(name)
    if found is None or found.sha256 != sha256:
        raise NoEngine(
            f"the mirror no longer has {name} {version} of {release}: pin the one it has in tests/images/engine.py"
        )
    return found


def _unpack(deb: Path, root: Path) -> None:
    data = read_deb(deb).data
    wanted = [each for each in data.getmembers() if each.name.startswith(("./usr/bin", "./usr/sbin", "./usr/libexec"))]
    data.extractall(root, wanted, filter="tar")


def _served(folder: Path, root: Path, containerd_store: bool) -> Iterator[Engine]:
    engine = Engine(root / "bin/docker", folder / "s")
    (folder / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": containerd_store}}))
    command = [root / "sbin/dockerd", "--config-file", folder / "daemon.json", "--data-root", folder / "data"]
    command += ["--exec-root", folder / "exec", "--host", f"unix://{engine.socket}", "--pidfile", folder / "pid"]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    environ = {**os.environ, "PATH": f"{root}/bin:{root}/sbin:{os.environ['PATH']}"}
    log = (folder / "log").open("w")
    daemon = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(engine, daemon, folder / "log")
        yield engine
    finally:
        log.close()
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        _unmount(folder)


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
