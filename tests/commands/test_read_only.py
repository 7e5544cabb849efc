"""Commands on a file system that is really read-only, in a mount namespace of its own: one clear line, exit code 2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.test_server import program as program

ROOT = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
EDGEPACK = "from edgepack.launch import edgepack; edgepack()"


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_mount(), reason="no user namespaces: nothing can be mounted read-only")


def on_read_only_home(home: Path, *arguments: str, **environ: str) -> str:
    """Run `edgepack` with all of HOME read-only; returns its one line."""
    home.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs tmpfs '{home}' && mkdir '{home}/cache' && mount -o remount,ro '{home}' && exec \"$@\""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("XDG_", "EDGEPACK_"))}
    done = subprocess.run(
        [*NAMESPACE, mount, "sh", sys.executable, "-c", EDGEPACK, *arguments],
        cwd=ROOT,
        env={**inherited, "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == "", done
    assert "Read-only file system" in done.stderr
    return done.stderr


def test_a_login_says_where_it_could_be_kept_instead(program, tmp_path):
    token = program.admin["Authorization"].removeprefix("Bearer ")
    line = on_read_only_home(tmp_path / "home", "login", "--hub", program.url, "--token", token)
    assert str(tmp_path / "home") in line and "EDGEPACK_TOKEN" in line and token not in line


@pytest.mark.parametrize("arguments", [("cache", "prune"), ("build", "examples/wine-line", "--arch", "x86")])
def test_a_cache_names_the_variable_that_moves_it(tmp_path, arguments):
    cache = str(tmp_path / "home" / "cache")
    more = ("-o", str(tmp_path / "out.tar")) if arguments[0] == "build" else ()
    line = on_read_only_home(tmp_path / "home", *arguments, *more, EDGEPACK_CACHE=cache)
    assert f"the cache '{cache}' cannot be written" in line and "set EDGEPACK_CACHE" in line
