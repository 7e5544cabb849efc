"""Environments: what belongs into one, when it is made, and that it is whole or not there. No index is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from edgepack.errors import BadInput, BuildFailed
from packager.environments import CLASSIC, Recipe, list_environments, prune_environments, ready
from packager.environments.interpreters import find, own_minor
from packager.environments.recipe import LOCKS, packages

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
    (kept,) = list_environments(cache)
    assert kept.title == "tiny with tiny==1.0" and kept.packages == {"tiny": "1.0"} and kept.size_bytes > 0
    assert prune_environments(cache, 3600, (first.folder / "environment.json").stat().st_mtime) == 0
    assert prune_environments(cache, 0, sys.maxsize) == kept.size_bytes
    assert list_environments(cache) == [] and not first.folder.exists()


def test_two_builds_at_once_make_one(wheels: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found: list[Path] = []

    def make() -> None:
        found.append(ready(TINY, tmp_path / "cache", OFFLINE, notice=said.append, wheels=wheels).folder)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 3 and len(said) == 1


def test_a_changed_wheel_is_refused_and_nothing_is_left(wheels: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ready(TINY, cache, OFFLINE, wheels=wheels)
    prune_environments(cache, 1, sys.maxsize)  # what was resolved is kept
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


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.name)
def test_locks_pin_everything_with_hashes_and_no_address(lock: Path) -> None:
    text, found = lock.read_text(), packages(lock.read_text())
    assert "http" not in text and "--hash=sha256:" in text
    assert {"scikit-learn", "skl2onnx", "onnxmltools", "xgboost-cpu", "lightgbm", "skops", "pandas"} <= set(found)
    assert "xgboost" not in found and found["protobuf"].startswith("6.") and found["onnx"] < "1.24"


def test_our_own_python_is_found() -> None:
    found = find(own_minor(), os.environ)
    assert found is not None and found.minor == own_minor()
    assert find("3.99", os.environ) is None
