"""Real packages for workers: a wheel of the numpy that runs here, put together again, and environments made of it.

Kept under the user's cache folder, by version: unpacking and compiling numpy takes seconds.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import platformdirs
import pytest

from oci.digest import Digest
from packager.environments.interpreters import find
from runtimes.environment import make_environment, this_python

CACHE = platformdirs.user_cache_path("edgepack") / "tests" / f"python-{this_python()}"


def wheel(folder: Path, name: str, files: dict[str, bytes], *, tag: str = "py3-none-any", **changes: bytes) -> Path:
    """A wheel of these files; `changes` replace a file after RECORD was written."""
    info = f"{name}-1.0.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()}
    record = "".join(f"{path},{_hash(data)},{len(data)}\n" for path, data in files.items()) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-1.0-{tag}.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(inner, changes.get(inner, data))
    return path


def numpy_wheel() -> Path:
    """The numpy that runs here, as the wheel it came from."""
    installed = distribution("numpy")
    tag = next(line[5:] for line in installed.read_text("WHEEL").splitlines() if line.startswith("Tag: "))
    path = CACHE / f"numpy-{installed.version}-{tag}.whl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        _pack(installed, part)
        part.rename(path)
    return path


def numpy_environment() -> Path:
    """The folder of an environment with numpy alone."""
    path = numpy_wheel()
    return make_environment({path: Digest.of(path.read_bytes())}, CACHE / "environments")


def interpreter(version: str) -> str:
    """Another Python of this machine, or a skip where it is not here."""
    found = find(version, os.environ)
    if found is None:
        pytest.skip(f"no Python {version} here")
    return str(found.path)


def installed(name: str, *requirements: str, python: str = sys.executable) -> Path:
    """A folder with packages from the index, or a skip where there is none to be had."""
    folder = CACHE / name
    if not folder.is_dir():
        part = folder.with_suffix(f".{os.getpid()}")
        command = ["uv", "pip", "install", "--quiet", "--python", python, "--target", str(part), *requirements]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no packages to be had: {done.stderr.strip()[-200:]}")
        part.rename(folder)
    return folder


def _pack(installed, path: Path) -> None:
    """RECORD names the files as they are in the wheel, but for what installing added."""
    base = Path(str(installed.locate_file("")))
    info = f"numpy-{installed.version}.dist-info"
    names = [line.split(",")[0] for line in (base / info / "RECORD").read_text().splitlines()]
    added = {f"{info}/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")}
    kept = [n for n in names if not n.startswith("..") and n not in added and not n.endswith(".pyc")]
    with zipfile.ZipFile(path, "w") as archive:
        record = ""
        for name in kept:
            data = (base / name).read_bytes()
            archive.writestr(name, data)
            record += f"{name},{_hash(data)},{len(data)}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
