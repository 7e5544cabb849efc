"""The guide from MLflow as a reader follows it; the example's image; both answer as mlflow itself does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from buildx.mirror import APT, find_mirror
from edgepack.errors import BadInput
from oci.tar import read_tar
from packager.environments import ready
from tests.buildx.rootfs import serving, unpack, why_not_chroot
from tests.frameworks.mlflow_environment import MLFLOW
from tests.frameworks.test_python_steps import infer
from tests.guides import ROOT, Reader

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them makes mlflow's environment

EXAMPLE = ROOT / "examples/mlflow-wine"
WINES = [
    {"alcohol": 13.2, "malic_acid": 1.8, "color_intensity": 4.4, "proline": 1050.0},
    {"alcohol": 12.1, "malic_acid": 1.5, "color_intensity": 2.1, "proline": 420.0},
    {"alcohol": 13.0, "malic_acid": 3.9, "color_intensity": 8.9, "proline": 640.0},
]
TASTED = [{name: value for name, value in wine.items() if name != "proline"} for wine in WINES]
GRADES: list[dict[str, Any]] = [
    {**TASTED[0], "ash": None, "strictness": None},
    {**TASTED[1], "ash": 2.3, "strictness": 1.4},
    {**TASTED[2], "ash": 2.5, "strictness": None},
]
ALONE = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
for row in json.loads(sys.argv[2]):
    params = {name: row.pop(name) for name in ("strictness",) if name in row}
    given = pandas.DataFrame([{name: value for name, value in row.items() if value is not None}])
    found = model.predict(given, params={k: v for k, v in params.items() if v is not None} or None)
    print(json.dumps(found.to_dict("records")[0] if hasattr(found, "to_dict") else {"predictions": found[0]}))
"""


def by_itself(cache: Path, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What mlflow answers, without edgepack."""
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [ready(MLFLOW, cache, os.environ).python, "-c", ALONE, EXAMPLE / name, json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    return [json.loads(line) for line in done.stdout.splitlines()]


def same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    return all(
        one.keys() == other.keys()
        and all(one[n] == (v if isinstance(v, str) else pytest.approx(v, rel=1e-9)) for n, v in other.items())
        for one, other in zip(ours, theirs, strict=True)
    )


def test_the_guides_commands_serve_what_mlflow_answers_by_itself(tmp_path: Path, cache: Path) -> None:
    with Reader(tmp_path, ("mlflow-wine",)) as reader:
        *_, quality, grade = reader.follow(ROOT / "docs/guides/from-mlflow.md")
        found = {
            "quality": infer(reader.url, WINES, "pipelines/quality"),
            "grade": infer(reader.url, GRADES, "pipelines/grade"),
        }
    assert json.loads(quality)[0]["out"] == {"predictions": "barolo"}
    assert json.loads(grade)[0]["out"]["grade"] == "reserve"
    assert same(found["quality"], by_itself(cache, "quality", WINES))
    assert same(found["grade"], by_itself(cache, "grade", GRADES))


def test_the_examples_image_answers_as_mlflow_does(tmp_path: Path, cache: Path) -> None:
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    reason = why_not_chroot()
    if reason:
        pytest.skip(reason)
    project = shutil.copytree(EXAMPLE, tmp_path / "mlflow-wine")
    program = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]
    command = [*program, "build", "grade", "--arch", "x86", "-o", str(tmp_path / "grade.tar")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, check=False)
    assert done.returncode == 0, done.stderr
    (image,) = read_tar(tmp_path / "grade.tar").images
    with serving(image, unpack(image, tmp_path / "root")) as url:
        assert same(infer(url, GRADES), by_itself(cache, "grade", GRADES))
