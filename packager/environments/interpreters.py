"""Finding a Python on this machine: our own, those on the path, pyenv's, and what uv knows of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KNOWN = ("3.11", "3.12", "3.10", "3.13")  # in the order in which old libraries are likely to have wheels for them
_ASK = "import sys, platform; print('%d.%d' % sys.version_info[:2], platform.python_version(), sys.base_prefix)"
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Interpreter:
    """A Python program that answered, its `minor` ("3.11") and whole version."""

    path: Path
    minor: str
    version: str


def own_minor() -> str:
    """The Python that runs this program: `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find(minor: str, environ: Mapping[str, str]) -> Interpreter | None:
    """A Python of that minor version, or None."""
    for path in _candidates(minor, environ):
        found = _asked(path)
        if found is not None and found.minor == minor:
            return found
    return None


def _candidates(minor: str, environ: Mapping[str, str]) -> Iterator[Path]:
    if minor == own_minor():
        yield Path(getattr(sys, "_base_executable", "") or sys.executable)
        yield Path(sys.executable)
    on_path = shutil.which(f"python{minor}", path=environ.get("PATH"))
    if on_path:
        yield Path(on_path)
    pyenv = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(pyenv.glob(f"{minor}.*/bin/python{minor}"), reverse=True)
    yield from sorted(Path.home().glob(f".local/share/uv/python/cpython-{minor}.*/bin/python{minor}"), reverse=True)
    yield Path(f"/usr/bin/python{minor}")


def _asked(path: Path) -> Interpreter | None:
    """What a program says it is. A shim that points nowhere, or another program of that name, is passed over."""
    try:
        done = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        minor, version, _ = done.stdout.split(maxsplit=2)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return Interpreter(path, minor, version) if done.returncode == 0 else None
