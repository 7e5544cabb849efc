"""Requirements of a step and the wheels they become, resolved by the real uv from a folder of wheels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from arch.target import Target, host_target
from arch.traits import traits_of
from buildx.lock import Lock
from edgepack.errors import BadInput
from packager import wheels as module
from packager.requirements import pinned_version, read_requirements, repinned, with_imports
from packager.wheels import Environment, Mode, StepWheels, WheelSource, versions
from tests.buildx.parts import make_wheel

NO_INDEX = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_NO_CONFIG": "1"}
X86, ARM = Target("x86"), Target("arm")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Wheels of `pure` for all machines, of `native` for x86, and of one older version of it for arm."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.0", "1.2", "2.0"):
        make_wheel(folder, "pure", version, files={"pure.py": b"x = 1"})
    make_wheel(folder, "numpy", "2.0", files={"numpy.py": b""})
    make_wheel(folder, "native", "3.1", {"native.py": b""}, "cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(folder, "native", "3.0", {"native.py": b""}, "cp311-cp311-manylinux_2_28_aarch64")
    return folder


def obtain(
    tmp_path: Path, local: Path, asked: Sequence[str], mode: Mode = "exact", target: Target = X86, frozen: bool = False
) -> Environment:
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    found = StepWheels(project, tmp_path / "cache", WheelSource(local, frozen), NO_INDEX)
    return found.obtain("prepare", asked, mode, target)


def chosen(environment: Environment) -> dict[str, str]:
    return {wheel.name: wheel.version for wheel in environment.wheels}


def lock(tmp_path: Path) -> Lock:
    return Lock.decode((tmp_path / "project/edgepack.lock").read_text(), "edgepack.lock")


def test_wheels_are_resolved_for_the_target_and_have_a_place_in_the_bundle(tmp_path: Path, local: Path) -> None:
    found = obtain(tmp_path, local, ["native", "pure==1.2"])
    assert chosen(found) == {"native": "3.1", "pure": "1.2"}
    assert sorted(found.files) == [
        "wheels/prepare/native-3.1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "wheels/prepare/pure-1.2-py3-none-any.whl",
    ]
    assert all(path.is_file() for path in found.files.values())
    assert found.size_bytes == sum(path.stat().st_size for path in found.paths)
    assert chosen(obtain(tmp_path, local, ["native", "pure==1.2"], target=ARM)) == {"native": "3.0", "pure": "1.2"}


def test_a_pin_without_a_wheel_names_the_nearest_version_that_has_one(tmp_path: Path, local: Path) -> None:
    with pytest.raises(BadInput, match=r"'native==3\.1', which has no wheel .* arm/none: .* is 3\.0: write") as error:
        obtain(tmp_path, local, ["native==3.1"], target=ARM)
    assert error.value.field == "steps.requirements"
    assert not (tmp_path / "project/edgepack.lock").exists()


@pytest.mark.parametrize("pin, nearest", [("1.1", "1.2"), ("1.9", "1.2"), ("0.5", "1.0"), ("9", "2.0")])
def test_compatible_takes_the_nearest_version_and_records_it(
    tmp_path: Path, local: Path, pin: str, nearest: str
) -> None:
    found = obtain(tmp_path, local, [f"pure=={pin}"], "compatible")
    assert chosen(found) == {"pure": nearest}
    assert found.changes == (f"pure {nearest} instead of {pin}, which has no wheel for Python 3.11 on x86/none",)
    locked = lock(tmp_path).step["prepare"]["x86/none"]
    assert (locked.asked, locked.requirements) == ([f"pure=={pin}"], [f"pure=={nearest}"])
    assert locked.changes == list(found.changes)


def test_a_lock_is_taken_as_it_stands_and_asks_nobody(tmp_path: Path, local: Path) -> None:
    first = obtain(tmp_path, local, ["pure>=1.0,<2"])
    make_wheel(local, "pure", "1.5", files={"pure.py": b"newer"})
    assert chosen(obtain(tmp_path, local, ["pure>=1.0,<2"])) == chosen(first) == {"pure": "1.2"}
    assert chosen(obtain(tmp_path, local, ["pure>=1.0,<2"], frozen=True)) == {"pure": "1.2"}
    assert chosen(obtain(tmp_path, local, ["pure>=1.1,<2"])) == {"pure": "1.5"}


def test_a_frozen_lock_is_never_resolved_anew(tmp_path: Path, local: Path) -> None:
    obtain(tmp_path, local, ["pure==1.0"])
    with pytest.raises(BadInput, match="other requirements of step 'prepare'"):
        obtain(tmp_path, local, ["pure==1.2"], frozen=True)
    with pytest.raises(BadInput, match="--locked"):
        obtain(tmp_path, local, ["pure==1.0"], frozen=True, target=ARM)


def test_a_lock_made_with_other_versions_is_not_taken_for_exact_pins(tmp_path: Path, local: Path) -> None:
    obtain(tmp_path, local, ["pure==1.1"], "compatible")
    with pytest.raises(BadInput, match="nearest"):
        obtain(tmp_path, local, ["pure==1.1"], "exact")


def test_a_package_nobody_has_is_named(tmp_path: Path, local: Path) -> None:
    with pytest.raises(BadInput, match=r"'nowhere==1\.0', of which no version has a wheel"):
        obtain(tmp_path, local, ["nowhere==1.0"])
    with pytest.raises(BadInput, match="nowhere"):
        obtain(tmp_path, local, ["nowhere"])


def test_a_target_without_accelerator_takes_the_build_for_processors(tmp_path: Path, local: Path) -> None:
    make_wheel(local, "xgboost", "3.2", files={"xgboost.py": b""})
    make_wheel(local, "xgboost", "1.0", files={"xgboost.py": b""})
    make_wheel(local, "xgboost_cpu", "3.2", files={"xgboost.py": b""})
    assert chosen(obtain(tmp_path, local, ["xgboost==3.2"])) == {"xgboost-cpu": "3.2"}
    assert chosen(obtain(tmp_path, local, ["xgboost"])) == {"xgboost-cpu": "3.2"}
    assert chosen(obtain(tmp_path, local, ["xgboost==1.0"])) == {"xgboost": "1.0"}


def test_this_machine_runs_the_same_versions(tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = obtain(tmp_path, local, ["pure==1.2"], target=ARM)
    here = StepWheels(tmp_path / "project", tmp_path / "cache", WheelSource(local), NO_INDEX)
    assert chosen(here.for_this_machine("prepare", found)) == {"pure": "1.2"}
    monkeypatch.setattr(module, "host_traits", lambda: replace(traits_of(host_target()), python="3.13"))
    assert here.for_this_machine("prepare", found).python == "3.13"


def test_versions_of_several_targets_are_listed_together(tmp_path: Path, local: Path) -> None:
    both = [obtain(tmp_path, local, ["native"], target=target) for target in (X86, ARM)]
    assert versions(both) == {"native": "3.0, 3.1"}


def test_requirements_are_read_as_people_and_tools_write_them() -> None:
    text = """
    # made by hand
    scikit-learn == 1.5.2   # the version of training
    pandas[performance]>=2 \\
        --hash=sha256:abc --hash=sha256:def
    tomli; python_version < "3.11"
    wallaroo==2024.1
    scikit-learn==1.5.2
    """
    expected = ["pandas[performance]>=2", "scikit-learn==1.5.2", 'tomli; python_version < "3.11"']
    assert read_requirements(text.encode(), "requirements.txt") == expected
    assert read_requirements(text.encode("utf-16"), "requirements.txt") == expected


@pytest.mark.parametrize(
    "line, word",
    [("--index-url http://x/", "option"), ("-r more.txt", "option"), ("-e .", "option"), ("./x.whl", "does not read"),
     ("x @ https://host/x.whl", "address"), ("a==1\na==2", ":2 names 'a' again"), ("a b", "does not read"),
     ("a==", "does not read")],
)  # fmt: skip
def test_a_line_that_cannot_be_taken_is_named(line: str, word: str) -> None:
    with pytest.raises(BadInput, match=word) as error:
        read_requirements(line.encode(), "requirements.txt")
    assert str(error.value).startswith("requirements.txt:")


def test_what_is_imported_and_not_named_is_added_where_it_is_known() -> None:
    assert with_imports([], ["pandas", "sklearn"]) == ["numpy", "pandas"]
    assert with_imports(["numpy==1.26.4", "Pandas<3"], ["pandas"]) == ["numpy==1.26.4", "Pandas<3"]


def test_pins_are_told_from_ranges() -> None:
    assert [pinned_version(line) for line in ("a==1.0", "a===1.0", "a==1.*", "a>=1", "a", "a==1,!=2")] == [
        "1.0", "1.0", None, None, None, None,
    ]  # fmt: skip
    assert repinned('a[x,b]==1; python_version < "4"', "2") == 'a[b,x]==2; python_version < "4"'
