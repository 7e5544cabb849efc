"""Interpreters with an engine that `.venv` has not: made once, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import platformdirs
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
_CACHE = platformdirs.user_cache_path("edgepack") / "tests"
_MADE_S = 600


def engine_python(name: str, requirements: Iterable[str], version: str) -> Path:
    """The interpreter of an environment that is made whole or not at all; a skip where it cannot be had."""
    asked = sorted(requirements)
    key = hashlib.sha256("\n".join((version, *asked)).encode()).hexdigest()[:12]
    folder = _CACHE / f"{name}-{key}"
    if not folder.is_dir():
        part = folder.with_suffix(f".{os.getpid()}")
        try:
            _uv("venv", "--python", version, str(part))
            _uv("pip", "install", "--python", str(part / "bin" / "python"), *asked)
            if not folder.is_dir():  # else another process was quicker
                part.rename(folder)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no environment with {name} to be had: {error.stderr.strip()[-300:]}")
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder / "bin" / "python"


def engine_environ(**more: str) -> dict[str, str]:
    """Variables of a child in such an environment: our rooms first on its path, nothing of an engine's but `more`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EDGEPACK_", "PYTHON"))}
    return {**inherited, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", **more}


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MADE_S, env=environ)
