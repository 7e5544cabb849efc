"""Environments: what belongs into one, when it is made, and that it is whole or not there. No index is asked."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgepack import launch
from edgepack.commands import program
from edgepack.errors import BadInput, BuildFailed
from packager.environments import CLASSIC, TENSORFLOW, Recipe, list_environments, prune_environments, ready
from packager.environments.install import lacking, preferred
from packager.environments.interpreters import Interpreter, find, own_minor
from packager.environments.recipe import LOCKS, packages

ROOT = Path(__file__).parents[2]
OFFLINE = {**os.environ, "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A wheelhouse with one small package in two versions."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.0", "2.0"):
        with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
            info = f"tiny-{version}.dist-info"
            files = {
                "tiny.py": f"version = '{version}'\n",
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
                f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            }
            record = "".join(f"{name},,\n" for name in files) + f"{info}/RECORD,,\n"
            for name, text in {**files, f"{info}/RECORD": record}.items():
                wheel.writestr(name, text)
    return folder


TINY = Recipe("tiny", ("tiny",), about_mb=1).pinned("tiny==1.0")


def test_one_is_made_from_a_wheelhouse_without_a_network(wheels: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = ready(TINY, tmp_path / "cache", OFFLINE, notice=said.append, wheels=wheels)
    done = subprocess.run(
        [found.python, "-I", "-c", "import tiny; print(tiny.version)"], capture_output=True, text=True
    )
    assert done.stdout == "1.0\n" and (found.site_packages / "tiny.py").is_file()
    assert len(said) == 1 and "making the environment 'tiny with tiny==1.0' once: 1 packages" in said[0]
    assert "about 1 MB" in said[0] and "--hash=sha256:" in (found.folder / "lock.txt").read_text()


def test_it_is_made_once_and_listed_and_pruned(wheels: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    first = ready(TINY, cache, OFFLINE, notice=said.append, wheels=wheels)
    again = ready(TINY, cache, OFFLINE, notice=said.append, wheels=wheels)
    assert again == first and len(said) == 1
    folder = first.folder
    (kept,) = list_environments(cache)
    assert kept.title == "tiny with tiny==1.0" and kept.packages == {"tiny": "1.0"} and kept.size_bytes > 0
    del first, again
    assert prune_environments(cache, 3600, (folder / "environment.json").stat().st_mtime) == 0
    assert prune_environments(cache, 0, sys.maxsize) == kept.size_bytes
    assert list_environments(cache) == [] and not folder.exists()


def test_one_that_is_in_use_is_not_pruned(wheels: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    held = ready(TINY, cache, OFFLINE, wheels=wheels)
    assert prune_environments(cache, 0, sys.maxsize) == 0 and held.python.exists()
    del held
    assert prune_environments(cache, 0, sys.maxsize) > 0


MAKES = """
import os, sys
from pathlib import Path
from packager.environments import Recipe, ready
from tests.packager.test_environments import TINY
print(ready(TINY, Path(sys.argv[1]), os.environ, notice=print, wheels=Path(sys.argv[2])).folder)
"""


def making(cache: Path, wheels: Path, environ: Mapping[str, str] = OFFLINE) -> subprocess.Popen[str]:
    """A process of its own, in a group of its own, that asks for the environment."""
    command = [sys.executable, "-c", MAKES, str(cache), str(wheels)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def test_two_builds_at_once_make_one(wheels: Path, tmp_path: Path) -> None:
    """Two real processes: one says that it makes it, both get the same folder."""
    both = [making(tmp_path / "cache", wheels) for _ in range(2)]
    said = [child.communicate(timeout=300) for child in both]
    assert [child.returncode for child in both] == [0, 0], said
    lines = [line for out, _ in said for line in out.splitlines()]
    folders = {line for line in lines if "making" not in line}
    assert len(lines) == 3 and len(folders) == 1 and Path(folders.pop(), "bin/python").exists()


class Silent:
    """An index that takes connections and never answers; `asked` is set by the first."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/simple"
        self.held: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.held.append(self.socket.accept()[0])
                self.asked.set()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        for each in [self.socket, *self.held]:
            each.close()


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL])
def test_one_that_is_interrupted_in_the_middle_leaves_nothing_half_made(
    signal_: signal.Signals, wheels: Path, tmp_path: Path
) -> None:
    """After a kill its folder is there under a name that nobody takes, and goes with the next making or pruning."""
    cache, index = tmp_path / "cache", Silent()
    ready(TINY, cache, OFFLINE, wheels=wheels)
    assert prune_environments(cache, 1, sys.maxsize) > 0  # what was resolved is kept
    fresh = {**os.environ, "UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(tmp_path / "uv")}
    wheel = wheels / "tiny-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole + b"other bytes")  # so that the index is asked
    with making(cache, wheels, fresh) as child:
        try:
            assert index.asked.wait(60)
            assert list((cache / "environments").glob(".*.part"))
            os.killpg(child.pid, signal_)
            said = child.communicate(timeout=60)
        finally:
            index.close()
    assert child.returncode == -signal_, said
    assert list_environments(cache) == []
    if signal_ == signal.SIGKILL:
        prune_environments(cache, 1, sys.maxsize)
    assert list((cache / "environments").glob(".*.part")) == []
    wheel.write_bytes(whole)
    assert ready(TINY, cache, OFFLINE, wheels=wheels).python.exists()


def test_a_changed_wheel_is_refused_and_nothing_is_left(wheels: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ready(TINY, cache, OFFLINE, wheels=wheels)
    assert prune_environments(cache, 1, sys.maxsize) > 0  # what was resolved is kept
    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("more.py", "")
    fresh = {**OFFLINE, "UV_CACHE_DIR": str(tmp_path / "uv")}
    with pytest.raises(BuildFailed, match=r"'tiny with tiny==1\.0' could not be made: .*[Hh]ash"):
        ready(TINY, cache, fresh, wheels=wheels)
    assert list_environments(cache) == [] and not list((cache / "environments").glob(".*.part"))


def test_what_a_cut_off_making_left_is_made_anew(wheels: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ready(TINY, cache, OFFLINE, wheels=wheels)
    (first.folder / "environment.json").unlink()
    assert list_environments(cache) == []
    again = ready(TINY, cache, OFFLINE, wheels=wheels)
    assert again.folder == first.folder and (again.site_packages / "tiny.py").is_file()


def test_a_version_that_nobody_has_is_one_line(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"no Python of this machine can have the environment 'tiny with tiny==3\.0'"
    ) as e:
        ready(TINY.pinned("tiny==3.0"), tmp_path / "cache", OFFLINE, wheels=wheels)
    assert "\n" not in str(e.value)


def test_a_pin_stands_in_the_place_of_ours_with_the_bounds_it_needs() -> None:
    asked = CLASSIC.pinned("scikit-learn==1.3.0").asked()
    assert "scikit-learn==1.3.0" in asked and "scikit-learn" not in asked and "numpy<2" in asked
    assert "numpy<2" not in CLASSIC.pinned("scikit-learn==1.8.0").asked()


def test_the_same_minor_version_needs_no_environment_of_its_own() -> None:
    minor = own_minor()
    lock = CLASSIC.lock(minor)
    assert lock is not None
    ours = packages(lock.read_text())["scikit-learn"]
    assert CLASSIC.having("scikit-learn", ".".join(ours.split(".")[:2]) + ".77", minor) == CLASSIC
    assert CLASSIC.having("scikit-learn", "1.0.2", minor).pins == ("scikit-learn==1.0.2",)


HELD = {
    "classic": {"scikit-learn", "skl2onnx", "onnxmltools", "xgboost-cpu", "lightgbm", "skops", "pandas"},
    "tensorflow": {"tf2onnx", "onnxruntime", "keras", "numpy"},
}


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.name)
def test_locks_pin_everything_with_hashes_and_no_address(lock: Path) -> None:
    name, _, minor = lock.stem.partition("-py3")
    text, found = lock.read_text(), packages(lock.read_text(), f"3.{minor}")
    assert "http" not in text and "--hash=sha256:" in text
    assert set(found) >= HELD[name]
    assert "xgboost" not in found and found["protobuf"].startswith("6.") and found["onnx"] < "1.24"


def test_a_lock_for_several_machines_counts_the_lines_of_this_one() -> None:
    lock = TENSORFLOW.lock("3.11")
    assert lock is not None
    found, is_x86 = packages(lock.read_text(), "3.11"), platform.machine() == "x86_64"
    assert ("tensorflow-cpu" in found, "tensorflow" in found) == (is_x86, not is_x86)
    later = "tiny==1.0 ; python_full_version < '3.12' \\\ntiny==2.0 ; python_full_version >= '3.12' \\\n"
    assert packages(later, "3.11") == {"tiny": "1.0"}
    assert packages(later, "3.12") == {"tiny": "2.0"}


def test_our_own_python_is_found() -> None:
    found = find(own_minor(), os.environ)
    assert found is not None and found.minor == own_minor()
    assert find("3.99", os.environ) is None


def test_what_a_folder_of_wheels_lacks_is_listed(wheels: Path, tmp_path: Path) -> None:
    """Of the names and versions that the lock has: what is there for another Python or machine does not count."""
    lock = "tiny==1.0 \\\n    --hash=sha256:00\nnumpy==2.4.6 \\\n    --hash=sha256:00\nUnder_Score==3 \\\n"
    (wheels / "numpy-2.4.6-cp39-cp39-manylinux_2_17_x86_64.whl").touch()
    (wheels / "numpy-2.4.6-cp311-cp311-win_amd64.whl").touch()
    (wheels / "under_score-3.0-py3-none-any.whl").touch()
    (wheels / "no wheel.whl").touch()
    assert lacking(wheels, lock, "3.11") == ["numpy 2.4.6"]
    (wheels / f"numpy-2.4.6-cp311-cp311-manylinux_2_17_{platform.machine()}.whl").touch()
    assert lacking(wheels, lock, "3.11") == []


def test_without_an_index_the_line_says_what_is_lacking(wheels: Path, tmp_path: Path) -> None:
    fresh = {**OFFLINE, "UV_CACHE_DIR": str(tmp_path / "uv")}
    with pytest.raises(
        BadInput, match=r"from '.*wheels' alone: for Python 3\.\d+ on \w+ it lacks cloudpickle \S+, "
    ) as e:
        ready(CLASSIC, tmp_path / "cache", fresh, wheels=wheels)
    assert "scikit-learn" in str(e.value) and "\n" not in str(e.value)
    assert list_environments(tmp_path / "cache") == []
    with pytest.raises(BadInput, match=r"--wheels '.*nowhere' is not a folder"):
        ready(CLASSIC, tmp_path / "cache", fresh, wheels=tmp_path / "nowhere")


def test_the_python_that_a_folder_of_wheels_is_for_is_taken(wheels: Path) -> None:
    """Here another than our own, and whole for that one alone."""
    mine, other = Interpreter(Path("a"), "3.11", "3.11.1"), Interpreter(Path("b"), "3.12", "3.12.1")
    found: list[tuple[Interpreter, str | None]] = [(mine, "numpy==2.4.6 \\\n"), (other, "tiny==1.0 \\\n")]
    assert preferred(found, wheels) == [found[1], found[0]]
    assert preferred(found, None) == found


def test_the_cache_command_shows_and_removes_them(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    ready(TINY, tmp_path / "cache", OFFLINE, wheels=wheels)
    for arguments in (["cache", "list"], ["cache", "prune"], ["cache", "list"]):
        assert launch.run(lambda: program, "edgepack", arguments) == 0
    out = capsys.readouterr().out
    assert out.count("tiny with tiny==1.0: Python 3.") == 1 and ", 1 packages, 0 MB, made in " in out
    assert list_environments(tmp_path / "cache") == []
