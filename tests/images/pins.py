"""The newer Debian packages that the tests run from a folder: pinned by digest, taken from the mirror of this machine.

bookworm's own engine writes no OCI layout and its emulator crashes in numpy, so these are of newer releases; runc is
bookworm's, because a newer one needs a newer glibc. Nothing is installed. When the mirror has moved on to another
version, its signed index decides anew, and that is said.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from buildx.archive import DebianArchive
from buildx.debian import Package, read_deb
from buildx.mirror import APT, VARIABLE, Mirror, find_mirror
from buildx.report import Quiet
from edgepack.errors import BadInput, EdgepackError

CACHE = platformdirs.user_cache_path("edgepack")


class Missing(Exception):
    """The packages cannot be had here; the text says why."""


@dataclass(frozen=True)
class Pin:
    """One package of one release, and which of its folders are wanted."""

    release: str
    name: str
    sha256: str
    folders: tuple[str, ...]


_PROGRAMS = ("usr/bin/", "usr/sbin/", "usr/libexec/")
ENGINE = (
    Pin("trixie", "docker.io", "142fe32f839a20720b2e6074b8d28d883b01bc45345f7315586b0c2d348dae87", _PROGRAMS),
    Pin("trixie", "docker-cli", "e78ac35b7a21652546ca1a739f63e4f31fe52e4385a9baf7020be400c594f23d", _PROGRAMS),
    Pin("trixie", "containerd", "ed708deb96fe476a3bce4efa5c0538dfbcf717ab9a7c7944ba7260342c25899c", _PROGRAMS),
    Pin("bookworm", "runc", "a00351f8c0318de0b424ecf5cd0fdb69880a89f3511cae4f6fff7de3e57881c5", _PROGRAMS),
    Pin("trixie", "docker-buildx", "fcf8c48204d1603c8f209451d7827eb91bf30759578baf7704e9e1a87e5f1d7f", _PROGRAMS),
)
COMPOSE = (
    Pin("trixie", "docker-compose", "47681197cb2b1ab88206b42a1a92fc75f50d9530a6322d03494a473eed0408ea", _PROGRAMS),
)
QEMU = (
    Pin(
        "trixie",
        "qemu-user",
        "ca6ede739327a20ae5a3498230c8a3a9a072c586e131bc6bcc1201eb1725e336",
        ("usr/bin/qemu-aarch64",),
    ),
)
QUADLET = (
    Pin(
        "trixie",
        "podman",
        "e3987a9d1e6d46cbd4ee11bd067927a5f7f886e41c7a2dbe5b89a436905d44a0",
        ("usr/libexec/podman/quadlet",),
    ),
)


def unpacked(pins: Sequence[Pin], cache: Path = CACHE, archive: Callable[[], DebianArchive] | None = None) -> Path:
    """The root folder that some packages are unpacked in: kept in the user's cache, so it takes seconds once.

    Raises Missing where there is no mirror.
    """
    root = cache / "tests" / hashlib.sha256(repr(pins).encode()).hexdigest()[:16]
    with _alone(root):
        if not root.is_dir():
            try:
                source = archive() if archive else DebianArchive(mirror(), CACHE / "debian", Quiet())
                debs = source.packages([_package(source, pin) for pin in pins])
            except EdgepackError as error:
                raise Missing(f"the packages {', '.join(pin.name for pin in pins)} cannot be had: {error}") from error
            _unpack(pins, debs, root)
    return root


def mirror() -> Mirror:
    """The mirror that apt here is configured with, as apt itself tells; else as builds find one."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        for line in done.stdout.splitlines():
            uri, codename, component = (*line.split(" "), "", "")[:3]
            if not os.environ.get(VARIABLE) and (codename, component) == ("bookworm", "main"):
                return Mirror(uri.rstrip("/"))
    return find_mirror(os.environ, APT)


def _package(archive: DebianArchive, pin: Pin) -> Package:
    """The pinned package, or where the mirror has moved on, the one that its signed index names now."""
    found = archive.index(pin.release, "amd64").find(pin.name)
    if found is None:
        raise BadInput(f"the mirror has no package '{pin.name}' of {pin.release}")
    if found.sha256 != pin.sha256:
        print(
            f"tests: the mirror moved on to {pin.name} {found.version} of {pin.release}, sha256 {found.sha256}: "
            "pin it in tests/images/pins.py",
            file=sys.stderr,
        )
    return found


def _unpack(pins: Sequence[Pin], debs: Sequence[Path], root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=root.parent, prefix=".unpack-"))
    try:
        for pin, deb in zip(pins, debs, strict=True):
            data = read_deb(deb).data
            wanted = [each for each in data.getmembers() if each.name.removeprefix("./").startswith(pin.folders)]
            data.extractall(stage, wanted, filter="tar")
        stage.chmod(0o755)
        stage.rename(root)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process unpacks, the others wait."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
