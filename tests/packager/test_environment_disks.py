"""A cache on a read-only file system, or on a full disk: one clear line, and nothing half made. Really mounted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import test_read_only as mounts
from tests.packager.test_archives import zipped
from tests.packager.test_environments import OFFLINE, ROOT, wheels
from tests.packager.test_python_step import GOOD

__all__ = ["wheels"]
pytestmark = mounts.pytestmark

MAKES = """
import os, sys
from pathlib import Path
from edgepack.errors import EdgepackError
from packager.environments import ready
from tests.packager.test_environments import TINY
cache = Path(sys.argv[1])
try:
    ready(TINY, cache, os.environ, wheels=Path(sys.argv[2]))
except EdgepackError as error:
    print(type(error).__name__, error)
print(*cache.glob("environments/.*.part"))
"""


@pytest.mark.parametrize("verb, name", [("bundle", "m.pkl"), ("init", "step.zip")])
def test_a_read_only_cache_is_one_line_that_names_the_variable(verb: str, name: str, tmp_path: Path) -> None:
    model = tmp_path / name
    if name == "m.pkl":
        model.write_bytes(b"\x80\x02csklearn.linear_model._base\nLinearRegression\n)\x81.")
    else:
        zipped(model, {"step.py": GOOD})
    cache = str(tmp_path / "home" / "cache")
    line = mounts.on_read_only_home(tmp_path / "home", verb, str(model), EDGEPACK_CACHE=cache)
    assert f"the cache '{cache}' cannot be written: Read-only file system" in line and "set EDGEPACK_CACHE" in line
    assert sorted(tmp_path.iterdir()) == [tmp_path / "home", model]


def test_a_full_disk_is_one_line_and_leaves_nothing_half_made(wheels: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    mount = f"mount -t tmpfs -o size=16k tmpfs '{cache}' && exec \"$@\""
    command = [*mounts.NAMESPACE, mount, "sh", sys.executable, "-c", MAKES, str(cache), str(wheels)]
    environ = {**OFFLINE, "UV_CACHE_DIR": str(tmp_path / "uv")}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False)
    line, left = done.stdout.splitlines() or pytest.fail(done.stderr)
    assert "No space left on device" in line and left == ""
