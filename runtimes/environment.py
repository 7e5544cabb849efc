"""`Environment`: the packages of a python step, unpacked once from the wheels that came with its bundle.

A folder `environments/<digest>/` holds what an installer would put into site-packages, compiled; it is whole or not
there, is named by the wheels in it, and is shared by all steps that have the same. Folders that have some wheels in
common share the files of these. Nothing of a wheel is executed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from bundle.store import OpenBundle
from durable.files import make_folder, publish
from edgepack.errors import BadInput, NotTrusted, RuntimeFailed
from oci.digest import Digest
from runtimes.child import ending
from runtimes.sandbox import SHIM, Sandbox, clean_environment
from runtimes.shared_wheels import SharedWheel, Unshared, find_shared, list_wheels

MOST_BYTES = 16 << 30  # of one wheel, unpacked
RESERVE_BYTES = 64 << 20  # of the disk, never filled by environments
COMPILE_S = 600.0
SCRATCH = ".scratch"  # in the folder of environments: temporary folders of workers
_CHUNK = 1 << 20
_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[0-9][^-]*)?-(?P<python>[^-]+)-[^-]+-[^-]+\.whl")
_DATA = re.compile(r"[^/]+\.data/(?P<scheme>[a-z]+)/(?P<rest>.+)")
_STAGE = re.compile(r"\.(?P<name>[0-9a-f]{64})\.(?P<pid>[0-9]{1,10})-[0-9]+\.part")
_STAGES = itertools.count()  # of this process: several of its threads may make the same one at once
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


def this_python() -> str:
    """The interpreter's minor version as steps name it: `3.11`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def check_python(step: str, wanted: str) -> None:
    """Raise RuntimeFailed unless this interpreter is the one that a step's wheels are for."""
    if wanted != this_python():
        raise RuntimeFailed(
            f"step '{step}' needs Python {wanted}, this machine's agent runs {this_python()}: "
            "build the bundle for this target again"
        )


def environment_name(wheels: Mapping[Path, str]) -> str:
    """The name of the folder that these wheels make; they map to their digests."""
    lines = sorted(f"{digest} {path.name}\n" for path, digest in wheels.items())
    return Digest.of(line.encode() for line in [f"python {this_python()}\n", *lines]).hex


def environment_names(bundle: OpenBundle) -> list[str]:
    """The folders that the python steps of a bundle use, whether they are there or not."""
    return [environment_name(bundle.wheels(step.name)) for step in bundle.spec.python_models]


def make_environment(wheels: Mapping[Path, str], environments: Path) -> Path:
    """Return the folder of these wheels, made if it is not there. They were verified when the bundle was unpacked.

    Raises BadInput for a wheel of another Python, NotTrusted for one that is damaged or leads out of its folder.
    """
    final = environments / environment_name(wheels)
    if final.is_dir():
        with suppress(OSError):  # for whoever removes what was not used for long
            os.utime(final)
        return final
    make_folder(environments)
    stage = environments / f".{final.name}.{os.getpid()}-{next(_STAGES)}.part"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _fill(stage, wheels, environments)
        _published(stage, final)
    except OSError as error:
        raise RuntimeFailed(f"a python step's environment cannot be made here: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return final


def _fill(stage: Path, wheels: Mapping[Path, str], environments: Path) -> None:
    """Put all wheels into a new folder: links to those that another environment has, and the others unpacked."""
    names = {wheel: environment_name({wheel: digest}) for wheel, digest in wheels.items()}
    shared = {wheel: found for wheel, name in names.items() if (found := find_shared(environments, name))}
    try:
        brought = _unpack(stage, wheels, shared)
    except Unshared:
        shutil.rmtree(stage)
        brought = _unpack(stage, wheels, {})
    list_wheels(stage, {names[wheel]: paths for wheel, paths in brought.items()})


def _unpack(stage: Path, wheels: Iterable[Path], shared: Mapping[Path, SharedWheel]) -> dict[Path, Sequence[str]]:
    """Unpack and compile what is not shared, link what is; the paths that each wheel brought. Raises Unshared."""
    stage.mkdir()
    brought: dict[Path, Sequence[str]] = {wheel: unpack_wheel(wheel, stage) for wheel in wheels if wheel not in shared}
    if brought:
        _compile(stage)
    for wheel, found in shared.items():
        found.link(stage)
        brought[wheel] = found.paths
    return brought


def collect(environments: Path, kept: Iterable[str]) -> None:
    """Delete the environments that are not kept, and what a cut left half-made; one that is kept and being made by a
    process that lives, as a trial's, stays.
    """
    names = {*kept, SCRATCH}
    for path in list(environments.iterdir()) if environments.is_dir() else ():
        stage = _STAGE.fullmatch(path.name)
        if path.name in names or (stage and stage["name"] in names and _lives(int(stage["pid"]))):
            continue
        shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    return True


def sweep(environments: Path) -> None:
    """Delete what workers left that were not ended in order, and environments half-made. For the owner of the folder,
    before it starts any.
    """
    for path in [environments / SCRATCH, *environments.glob(".*.part")]:
        shutil.rmtree(path, ignore_errors=True)


def unpack_wheel(wheel: Path, site: Path) -> list[str]:
    """Put a wheel's packages into a folder (PyPA, "Binary distribution format"); programs and headers are left out.

    Returns the paths in the folder.
    """
    _check_name(wheel.name)
    try:
        with zipfile.ZipFile(wheel) as archive:
            hashes = _record(archive, wheel.name)
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_room(sum(member.file_size for member in members), site, wheel.name)
            placed = [_place(archive, member, hashes, site, wheel.name) for member in members]
            return [path for path in placed if path is not None]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise NotTrusted(f"wheel '{wheel.name}' does not unpack: {error}") from error


def _check_room(size: int, site: Path, wheel: str) -> None:
    if size > MOST_BYTES:
        raise NotTrusted(f"wheel '{wheel}' unpacks to more than {MOST_BYTES >> 30} GiB")
    site.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(site).free - RESERVE_BYTES
    if size > free:
        raise RuntimeFailed(
            f"wheel '{wheel}' takes {size >> 20} MiB unpacked, {max(0, free) >> 20} MiB are free for it on this disk"
        )


def _published(stage: Path, final: Path) -> None:
    """Make it visible; another process may have been faster, with the same content."""
    try:
        publish(stage, final)
    except OSError:
        if not final.is_dir():
            raise


def _check_name(name: str) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadInput(f"'{name}' is not the name of a wheel")
    mine = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for tag in match["python"].split("."):
        if tag in ("py3", mine, f"py{mine[2:]}") or (tag.startswith("cp3") and "-abi3-" in name):
            return
    raise BadInput(f"wheel '{name}' is for another Python than {this_python()}: build the bundle again")


def _record(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """What RECORD says: the sha256 of each file, by path."""
    found = [each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", each)]
    if len(found) != 1:
        raise NotTrusted(f"wheel '{name}' has {len(found)} RECORD files, expected one")
    rows = csv.reader(io.StringIO(archive.read(found[0]).decode("utf-8")))
    return {row[0]: row[1] for row in rows if len(row) >= 2}


def _place(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, hashes: Mapping[str, str], site: Path, wheel: str
) -> str | None:
    """Write a member and return its path in the folder, or None where it is left out."""
    path = _path_in_site(member.filename)
    if path is None or (PurePosixPath(member.filename).name in _UNRECORDED and ".dist-info/" in member.filename):
        return None
    if stat.S_ISLNK(member.external_attr >> 16) or not _is_plain(path):
        raise NotTrusted(f"wheel '{wheel}' has a file '{member.filename[:100]}' that leads out of its folder")
    target = site / path
    target.parent.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    with archive.open(member) as source, _created(target, wheel) as file:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            hasher.update(chunk)
            file.write(chunk)
    said = "sha256=" + base64.urlsafe_b64encode(hasher.digest()).decode().rstrip("=")
    if hashes.get(member.filename) != said:
        raise NotTrusted(f"file '{member.filename}' of wheel '{wheel}' is not what its RECORD says")
    return path


def _created(target: Path, wheel: str) -> io.BufferedWriter:
    """A new file. What two wheels both bring (a namespace's `__init__.py`) is that of the last, as installers do."""
    if target.is_dir():
        raise NotTrusted(f"wheel '{wheel}' has a file where another has a folder: '{target.name}'")
    target.unlink(missing_ok=True)
    return target.open("xb")


def _path_in_site(name: str) -> str | None:
    """Where a file goes; None for programs, headers and the like, which no step imports."""
    data = _DATA.fullmatch(name)
    if data is None:
        return name
    return data["rest"] if data["scheme"] in ("purelib", "platlib") else None


def _is_plain(path: str) -> bool:
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and "\\" not in path and path.isprintable()


def _compile(folder: Path) -> None:
    """Byte code for all modules, in a child: a worker may not write it, and without it each start takes seconds."""
    sandbox = Sandbox(write=(folder,), file_bytes=64 << 20, memory_bytes=1 << 30)
    command = sandbox.command("edgepack_worker.compiling", [str(folder)], [SHIM])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMPILE_S, env=clean_environment(), cwd="/"
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailed(f"the environment's modules did not compile within {COMPILE_S:g} s") from error
    if done.returncode:
        words = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise RuntimeFailed(f"the environment's modules did not compile: {words or ending(done.returncode)}")
