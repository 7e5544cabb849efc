"""Environments of the frameworks, from the user's cache, and models trained in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.commands.cache import cache_folder
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.environments import CLASSIC, Environment, ready
from packager.inspect import inspect_step
from packager.project import Project

TRAINING = Path(__file__).with_name("training.py")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


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
