"""A pickle that the scan did not see through does no harm in the child either, and a hanging one is stopped."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import BadInput, RuntimeFailed
from packager.conversion import convert
from packager.environments import Environment

pytestmark = pytest.mark.frameworks


class Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["pickle", "joblib"])
def test_the_childs_own_unpickler_asks_for_every_name(form: str, classic: Environment, tmp_path: Path) -> None:
    mark, path = tmp_path / "made", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Writes(mark)))
    with pytest.raises(BadInput, match=r"names 'posix\.mkdir' while loading: stopped"):
        convert(path, form, classic, tmp_path / "work", inputs=None, outputs=None)
    assert not mark.exists()


def test_a_conversion_that_takes_too_long_is_stopped(models: Path, classic: Environment, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match=r"took more than 0\.1 s: stopped"):
        convert(models / "forest", "pickle", classic, tmp_path / "work", inputs=None, outputs=None, timeout_s=0.1)


def test_an_artefact_that_does_not_load_is_one_line(classic: Environment, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"learner": {"gradient_booster": 3}}')
    with pytest.raises(BadInput, match=r"model 'model\.json': it does not load here") as refused:
        convert(path, "xgboost", classic, tmp_path / "work", inputs=None, outputs=None)
    assert "\n" not in str(refused.value)
