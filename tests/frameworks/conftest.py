"""Environments of the frameworks, from the user's cache, models trained in them, and bundles of these: each made once
for a session, however many processes run its tests.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.pipeline import StepSpec
from bundle.store import OpenBundle, unpack
from edgepack.commands.cache import cache_folder
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import CLASSIC, HUGGING_FACE, TENSORFLOW, TORCH, Environment, ready
from packager.inspect import inspect_step
from packager.package import package
from packager.project import Project

HERE = Path(__file__).parent
TRAINING = HERE / "training.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


# by library, the fixtures and words in names that tell which tests of this folder make its environments
NEEDS = {
    "tensorflow": ({"saved"}, ("tensorflow", "tflite")),
    "torch": ({"networks", "pipelines", "bundled"}, ("torch", "keras", "network", "hugging_face", "native_images")),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the large library that they need, so that those of one can run after those of another: all of the
    environments together take 15 GB of a disk.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for library, (made, words) in NEEDS.items():
            if made & fixtures or any(word in item.nodeid.lower() for word in words):
                item.add_marker(library)
                break


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's cache: what was made for one run serves the next."""
    return cache_folder(os.environ)


@pytest.fixture(scope="session")
def classic(cache: Path) -> Environment:
    return ready(CLASSIC, cache, os.environ)


@pytest.fixture(scope="session")
def models(classic: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models of training.py, trained in one child."""
    folder = tmp_path_factory.mktemp("models")
    names = [line[4:].split("(")[0] for line in TRAINING.read_text().splitlines() if line.startswith("def ")]
    helpers = {"iris", "cancer", "diabetes", "mixed", "with_gaps", "save", "_booster"}
    train(classic, folder, [name for name in names if name not in helpers])
    return folder


@dataclass(frozen=True)
class Bundled:
    """A bundle as a device has it, and its parity report."""

    folder: Path
    parity: dict[str, Any]

    @property
    def step(self) -> StepSpec:
        """Its only step."""
        (step,) = OpenBundle(self.folder).spec.steps
        return step


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that all of its processes see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(final: Path, make: Callable[[Path], object]) -> Path:
    """A folder that the first who asks for it makes, while the others wait."""
    final.parent.mkdir(exist_ok=True)
    with final.with_name(f".{final.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.is_dir():
            stage = final.with_name(f".{final.name}.part")
            shutil.rmtree(stage, ignore_errors=True)  # of one that failed
            stage.mkdir()
            make(stage)
            stage.rename(final)
    return final


def scripted(final: Path, environment: Callable[[], Environment], script: str) -> Path:
    """What a script of this folder makes in an environment."""

    def make(folder: Path) -> None:
        subprocess.run([environment().python, HERE / script, folder], check=True, capture_output=True)

    return made_once(final, make)


@pytest.fixture(scope="session")
def networks(cache: Path, shared: Path) -> Path:
    """All networks of networks.py, with their own answers."""
    return scripted(shared / "networks", lambda: ready(TORCH, cache, os.environ), "networks.py")


@pytest.fixture(scope="session")
def saved(cache: Path, shared: Path) -> Path:
    """All models of savedmodels.py, with their own answers."""
    return scripted(shared / "saved", lambda: ready(TENSORFLOW, cache, os.environ), "savedmodels.py")


@pytest.fixture(scope="session")
def pipelines(cache: Path, shared: Path) -> Path:
    """A folder a task, with golden rows that a plain pipeline answered."""
    return scripted(shared / "pipelines", lambda: ready(HUGGING_FACE, cache, os.environ), "pipelines.py")


@pytest.fixture(scope="session")
def bundled(cache: Path, shared: Path) -> Callable[[str, Callable[[Path], Path]], Bundled]:
    """Packages what `project` puts into an empty folder, once for each name."""

    def made(name: str, project: Callable[[Path], Path]) -> Bundled:
        def make(folder: Path) -> None:
            found = package(Project.open(project(folder / "project")), [host_target()], cache=cache)
            (folder / "parity.json").write_text(json.dumps(found.parity))
            unpack(bundles(found.index)[0], folder / "bundle", link=True)

        final = made_once(shared / "bundles" / name, make)
        return Bundled(next((final / "bundle").iterdir()), json.loads((final / "parity.json").read_text()))

    return made


def train(environment: Environment, folder: Path, names: list[str]) -> None:
    """Train models by the functions' names. One thread: the same model on every run, and no threads that wait for one
    another where the machine is busy.
    """
    command = [environment.python, TRAINING, folder, *names]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ONE_THREAD})


@pytest.fixture
def inspected(models: Path, tmp_path: Path) -> Callable[..., ModelArtifact]:
    """Inspect, convert and prove a trained model in a project of its own; `toml` are lines of the step and below."""

    def inspect(name: str, toml: str = "", cache: Path | None = None) -> ModelArtifact:
        folder = project(models / name, tmp_path / name, toml)
        opened = Project.open(folder)
        return inspect_step(opened.steps[0], opened.root, Checklist(), cache or tmp_path_cache())

    return inspect


def tmp_path_cache() -> Path:
    return cache_folder(os.environ)


def project(model: Path, folder: Path, toml: str = "") -> Path:
    """A project with one model, a copy of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / model.name).write_bytes(model.read_bytes())
    (folder / "edgepack.toml").write_text(
        f'[pipeline]\nname = "tried"\n[[steps]]\nname = "model"\nmodel = "{model.name}"\n{toml}\n'
    )
    return folder
