"""Builds that are cut off: Ctrl-C at any moment, and a disk that takes no more. One line, nothing half-written, and the
next build goes through.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.layout import write_layout
from oci.tar import Tar
from oci.validate import validate
from tests.buildx.http_mirror import http_mirror
from tests.buildx.parts import agent_wheels, make_base, make_bundle, make_mirror, make_wheel

ENDS_WITHIN_S = 25  # far more than it takes, far less than the 30 s after which a silent mirror is given up
BUILD = """
import os
from pathlib import Path
from edgepack.launch import _end_with, run

def program():
    import click
    from arch.target import Target
    from buildx import Options, Quiet, Workplace, build
    from oci.layout import Layout

    @click.command()
    @click.argument("folder", type=click.Path(path_type=Path))
    @click.option("--base")
    def command(folder, base):
        index = Layout(folder / "bundle").index()
        options = Options(folder, folder, folder / "out.tar", base, wheels=folder / "wheels")
        environ = {"UV_OFFLINE": "1", "PATH": os.environ["PATH"]}
        print("building", flush=True)
        build(index, [Target("x86")], options, Workplace(folder / "cache", environ, folder / "apt"), Quiet())

    return command

_end_with(run(program, "edgepack"))
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    write_layout(make_bundle(tmp_path / "made"), tmp_path / "bundle")
    agent_wheels(tmp_path / "wheels")
    (tmp_path / "apt").mkdir()
    return tmp_path


@contextlib.contextmanager
def building(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BUILD, str(folder), *flags]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """What Ctrl-C does: the whole group hears it. Then the process must be gone."""
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=ENDS_WITHIN_S)
    return process.returncode, said.removeprefix("building\n").strip()


def half_written(folder: Path) -> list[str]:
    left = [path for path in folder.rglob("*") if path.suffix == ".part" or path.name.startswith((".build-", "out"))]
    parts = list((folder / "cache/layers/parts").glob("*"))
    return [str(path.relative_to(folder)) for path in (*left, *parts)]


def assert_builds(folder: Path, *flags: str) -> None:
    with building(folder, *flags) as process:
        said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert validate(Tar(folder / "out.tar")) == []


def test_ctrl_c_ends_a_build_at_once_while_downloads_hang(folder):
    make_mirror(folder / "mirror")
    with http_mirror(folder / "mirror", held=".deb") as mirror:
        (folder / "apt/sources.list").write_text(f"deb [signed-by=/no/keyring.gpg] {mirror.url} bookworm main\n")
        with building(folder) as process:
            assert mirror.is_holding.wait(60)
            assert interrupt(process) == (130, "interrupted")
    assert half_written(folder) == []
    assert not list((folder / "cache").rglob("*.deb")), "half a package must not be taken for whole"


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5])
def test_ctrl_c_at_any_moment_leaves_a_sound_cache_from_which_the_next_build_goes_on(folder, after_s):
    base = make_base(folder / "base")
    block = os.urandom(1 << 16) * 16
    for number in range(3):  # layers of their own, which take a moment each
        files = {f"large{number}/{each}.bin": block + bytes([each, number]) for each in range(8)}
        make_wheel(folder / "wheels", ("numpy", "pyarrow", "onnxruntime")[number], "99.0", files)
    with building(folder, "--base", str(base)) as process:
        assert process.stdout is not None and process.stdout.readline() == "building\n"
        time.sleep(after_s)
        code, said = interrupt(process)
    if code != 0:  # it was done before
        assert (code, said) == (130, "interrupted")
        assert half_written(folder) == []
    assert_builds(folder, "--base", str(base))


@pytest.fixture
def small_disk(folder) -> Iterator[Path]:
    """A cache on a disk of its own that holds very little."""
    cache = folder / "cache"
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(cache)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a disk that is full needs root and a tmpfs")
    try:
        yield cache
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


def full(folder: Path, *flags: str) -> str:
    with building(folder, *flags) as process:
        said, _ = process.communicate(timeout=100)
    assert process.returncode == 2, said
    (line,) = said.removeprefix("building\n").strip().splitlines()
    return line


def test_a_cache_that_has_no_room_for_a_wheel_is_one_line_and_left_sound(folder, small_disk):
    base = make_base(folder / "base")
    wheel = make_wheel(folder / "wheels", "numpy", "99.0", {"numpy/big.bin": os.urandom(6 << 20)})
    line = full(folder, "--base", str(base))
    # wheels are fetched side by side: the large one, or one that came beside it, finds no room
    assert re.match(rf"edgepack: '[\w.-]+\.whl' cannot be kept in the cache '{small_disk}/wheels': No space left", line)
    assert half_written(folder) == []
    wheel.unlink()
    assert_builds(folder, "--base", str(base))


def test_a_cache_that_has_no_room_for_a_layer_is_one_line_and_left_sound(folder, small_disk):
    base = make_base(folder / "base")
    small = {f"numpy/{number}.py": b"x = 1\n" * 4096 for number in range(900)}
    wheel = make_wheel(folder / "wheels", "numpy", "99.0", small)
    line = full(folder, "--base", str(base))
    assert line.startswith(f"edgepack: no room is left for the cache '{small_disk}' (No space left on device)")
    assert "edgepack cache prune" in line
    assert half_written(folder) == []
    wheel.unlink()
    assert_builds(folder, "--base", str(base))
