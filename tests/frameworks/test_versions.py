"""Models that an older scikit-learn saved are run by that one; what nobody can have is one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgepack.errors import BadInput
from packager.checks import Checklist
from packager.environments import CLASSIC, Environment, list_environments, ready
from packager.inspect import inspect_step
from packager.project import Project
from tests.frameworks.conftest import train

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

OLD = "1.3.0"


@pytest.fixture(scope="module")
def old_forest(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    train(ready(CLASSIC.pinned(f"scikit-learn=={OLD}"), cache, os.environ), folder, ["forest"])
    return folder / "forest"


def test_an_old_pickle_is_converted_in_an_environment_of_its_own_version(
    old_forest: Path, cache: Path, classic: Environment
) -> None:
    """The current version loads it with no more than a warning, and answers differently."""
    checklist = Checklist()
    opened = Project.open(old_forest)
    found = inspect_step(opened.steps[0], opened.root, checklist, cache)
    assert found.parity is not None and found.parity["versions"]["scikit-learn"] == OLD
    assert found.spec.runtime == "onnx"
    assert any(f"scikit-learn=={OLD}" in check.description for check in checklist.checks)
    assert any(each.packages["scikit-learn"] == OLD for each in list_environments(cache))


def test_current_and_old_version_disagree_about_the_same_pickle(
    old_forest: Path, cache: Path, classic: Environment
) -> None:
    """Why the version matters: neither of them says a word."""
    ask = "import pickle,sys,warnings; warnings.simplefilter('ignore'); from sklearn.datasets import load_iris; "
    ask += "print(pickle.load(open(sys.argv[1],'rb')).predict_proba(load_iris().data).sum(axis=0).round(6).tolist())"
    old = ready(CLASSIC.pinned(f"scikit-learn=={OLD}"), cache, os.environ)
    answers = [
        subprocess.run([each.python, "-c", ask, old_forest], capture_output=True, text=True, check=False).stdout
        for each in (old, classic)
    ]
    assert answers[0] != answers[1] and answers[0].startswith("[")


def test_a_version_that_does_not_exist_is_one_line(cache: Path) -> None:
    with pytest.raises(BadInput, match=r"no Python of this machine can have .*scikit-learn==1\.999\.0"):
        ready(CLASSIC.pinned("scikit-learn==1.999.0"), cache, os.environ)
