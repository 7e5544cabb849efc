"""Python steps packaged from a folder of wheels, without an index: each target's bundle, and what it depends on."""

from __future__ import annotations

import os
import platform as host
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from arch.target import Target, host_target, plain_targets
from bundle.bundle import bundles
from bundle.store import unpack
from edgepack.errors import BadInput, RuntimeFailed
from oci.image import Index
from packager.package import Packaged, package
from packager.project import Project
from packager.wheels import WheelSource
from runtimes.pipeline import LoadedPipeline
from tests.buildx.parts import make_wheel
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel

ARM, X86, JETSON = Target("arm"), Target("x86"), Target("arm", "jetson")
OTHER = "3.10" if sys.version_info[:2] != (3, 10) else "3.12"
STEP = """
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": input_data["x"] * 2}
"""
TOML = """
[[steps]]
name = "double"
model = "code"
[steps.input]
x = "float32"
[steps.output]
y = "float32"
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder in which numpy is unpacked already, as from a build before."""
    site = numpy_environment()
    shutil.copytree(site, tmp_path / "cache/workers" / site.name, copy_function=os.link)
    return tmp_path / "cache"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and beside it wheels of numpy: the real one for this machine, others that nobody here runs."""
    for key, value in {**NO_INDEX, "UV_CACHE_DIR": str(tmp_path / "uv")}.items():
        monkeypatch.setenv(key, value)
    folder = tmp_path / "project"
    (folder / "code").mkdir(parents=True)
    (folder / "code/step.py").write_text(STEP)
    (folder / "edgepack.toml").write_text(TOML)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for python in ("cp310", "cp311", "cp312"):
        for machine in ("x86_64", "aarch64"):
            if (python, machine) == (f"cp3{sys.version_info.minor}", host.machine()):
                continue
            make_wheel(
                wheels, "numpy", version("numpy"), {"numpy.py": b""}, f"{python}-{python}-manylinux_2_17_{machine}"
            )
    shutil.copy(numpy_wheel(), wheels)
    return folder


def packaged(project: Path, cache: Path, *asked: Target, here: bool = False) -> Packaged:
    targets = {*plain_targets(), *asked}
    source = WheelSource(project.parent / "wheels")
    return package(Project.open(project), targets, cache=cache, asked=asked, wheels=source, here=here)


def test_a_part_of_a_bundle_does_not_depend_on_the_others(project: Path, cache: Path) -> None:
    """An image has the same version whatever was built beside it, docs/decisions/0006; each target has its Python."""
    alone, every = (packaged(project, cache, *asked).index for asked in ([X86], [ARM, JETSON, X86]))
    _, *plain = every.images
    assert Index(tuple(plain), every.artifact_type, every.annotations).digest == alone.digest
    found = {str(each.target): each for each in bundles(every)}
    workers = {name: step.worker for name, each in found.items() for step in each.spec.steps if step.worker}
    assert {name: worker.python for name, worker in workers.items()} == {
        "arm/jetson": "3.10", "arm/none": "3.11", "x86/none": "3.11",
    }  # fmt: skip
    assert [path for path in found["arm/jetson"].blobs if path.startswith("wheels/")] == [
        f"wheels/double/numpy-{version('numpy')}-cp310-cp310-manylinux_2_17_aarch64.whl"
    ]


def test_a_device_with_another_python_refuses_and_says_why(project: Path, cache: Path, tmp_path: Path) -> None:
    """The user's own target file names that Python; the trial here runs in this program's."""
    (project / "targets").mkdir()
    target = host_target()
    (project / f"targets/{target.arch}-none.toml").write_text(f'target = "{target}"\npython = "{OTHER}"\n')
    found = packaged(project, cache, target)
    assert found.parity["label_flips"] == 0
    folder = unpack(next(each for each in bundles(found.index) if each.target == target), tmp_path / "device")
    with pytest.raises(RuntimeFailed, match=rf"step 'double' needs Python {OTHER}, this machine's agent runs "):
        LoadedPipeline.open(folder, tmp_path / "environments")


def test_without_wheels_of_one_architecture_the_other_is_built_and_it_is_said(project: Path, cache: Path) -> None:
    for path in (project.parent / "wheels").glob("*aarch64*"):
        path.unlink()
    found = packaged(project, cache, X86)
    assert [str(each.target) for each in bundles(found.index)] == ["x86/none"]
    assert any(note.startswith("the bundle has nothing for arm/none: ") and "numpy" in note for note in found.notes)
    with pytest.raises(BadInput, match="numpy"):
        packaged(project, cache, X86, ARM)
