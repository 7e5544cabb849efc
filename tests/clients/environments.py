"""Environments of other vendors' clients: one each, made on demand with uv and kept in the user's cache.

They cannot share one: their requirements exclude each other's.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from platformdirs import user_cache_path

PYTHON = "3.11"  # the newest that all of them run on
CLIENTS = {
    "triton": ("tritonclient[http]==2.73.0", "ml_dtypes==0.5.4"),
    "kserve": ("kserve==0.21.0",),
    "wallaroo": ("wallaroo==2026.1.3",),
    "moto": ("moto[s3,server]==5.2.5",),  # a server that speaks S3
    "schemathesis": ("schemathesis==4.32.5",),
}


def client_python(name: str) -> Path:
    """The interpreter of a client's environment, which is made whole or not at all."""
    requirements = CLIENTS[name]
    key = hashlib.sha256("\n".join((PYTHON, *requirements)).encode()).hexdigest()[:12]
    folder = user_cache_path("edgepack") / "test-clients" / f"{name}-{key}"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--python", PYTHON, str(folder))
        _uv("pip", "install", "--quiet", "--python", str(python), *requirements)
        (folder / "whole").touch()
    return python


def run_client(name: str, script: str, *arguments: str) -> str:
    """Run a script of `scripts/` in a client's environment; what it prints. Fails with what it says on failure."""
    path = Path(__file__).parent / "scripts" / script
    done = subprocess.run(
        [str(client_python(name)), "-I", str(path), *arguments], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{script}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
