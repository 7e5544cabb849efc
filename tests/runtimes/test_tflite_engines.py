"""The other TFLite engine, in an environment of its own: tflite-runtime, with the numpy that it was built for.

`test_tflite.py` runs there as it is, and the real agent. A target asks for it by two lines (docs/targets.md).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch.target import Target, host_target
from arch.traits import Traits, read_traits, traits_of
from buildx.requirements import requirements_for
from buildx.resolve import resolve
from bundle.bundle import pack
from bundle.pipeline import PipelineSpec, StepSpec
from oci.layout import write_layout
from tests import tflite_models
from tests.runtimes import test_tflite
from tests.runtimes.agent_elsewhere import call, environ_of, running
from tests.runtimes.engine_environment import CHECKOUT, engine_environ, engine_python

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]

PYTHON = "3.11"  # the newest that it has wheels for
TARGET_FILE = """
target = "{arch}/tflite-runtime"
like = "{arch}/none"
[replace]
ai-edge-litert = ["tflite-runtime>=2.14", "numpy<2"]
"""
SUITE = [name for name in vars(test_tflite) if name.startswith("test_")]
TOOLS = ("flatbuffers>=24", "hypothesis>=6", "pytest>=8", "pytest-timeout>=2")
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def traits(folder: Path, arch: str) -> Traits:
    """A target that says so."""
    path = folder / f"{arch}.toml"
    path.write_text(TARGET_FILE.format(arch=arch))
    plain = Target(arch)
    return read_traits(path, {plain: traits_of(plain)})


def requirements(target: Traits) -> list[str]:
    """Of an image for a TFLite pipeline."""
    return requirements_for({"tflite"}, target.replace, target.left_out)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = traits(tmp_path_factory.mktemp("target"), host_target().arch)
    return engine_python("tflite-runtime", [*requirements(target), *TOOLS], PYTHON)


@pytest.fixture(scope="module")
def outcomes(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[ElementTree.Element]]:
    """The cases of each test of `test_tflite.py`, as they went there."""
    folder = tmp_path_factory.mktemp("suite")
    report, schema = folder / "report.xml", folder / "path" / "ai_edge_litert"
    schema.mkdir(parents=True)  # what makes the models, without the engine beside it
    (schema / "__init__.py").touch()
    found = find_spec("ai_edge_litert")
    assert found and found.submodule_search_locations
    shutil.copy(Path(found.submodule_search_locations[0]) / "schema_py_generated.py", schema)
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        test_tflite.__file__,
    ]
    environ = engine_environ(PYTHONPATH=f"{CHECKOUT}:{schema.parent}")
    done = subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=240)
    assert report.is_file(), done.stdout + done.stderr
    cases: dict[str, list[ElementTree.Element]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        cases.setdefault(str(case.get("name")).partition("[")[0], []).append(case)
    return cases


@pytest.mark.parametrize("name", SUITE)
def test_the_suite_of_tflite_passes_in_tflite_runtime(
    outcomes: dict[str, list[ElementTree.Element]], name: str
) -> None:
    cases = outcomes.get(name, [])
    assert cases
    assert not [ElementTree.tostring(part, "unicode") for case in cases for part in case]


def layout(folder: Path, model: bytes) -> Path:
    (folder / "m.tflite").write_bytes(model)
    fields: dict[str, Any] = {"input": {"x": "list<float32>[4]"}, "output": {"y": "list<float32>[3]"}}
    step = StepSpec(name="m", model="m.tflite", framework="tflite", runtime="tflite", **fields)
    golden = json.dumps([{"in.x": [1, 2, 3, 4], "out.y": (np.array([1, 2, 3, 4]) @ WEIGHTS).tolist()}]).encode()
    index = pack(PipelineSpec("line", [step]), {"m.tflite": folder / "m.tflite"}, golden, [host_target()])
    write_layout(index, folder / "layout")
    return folder / "layout"


def test_the_agent_serves_with_tflite_runtime_and_says_so(python: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    with running(python, layout(tmp_path, tflite_models.dense(WEIGHTS)), host_target()) as agent:
        answers = np.array([row["y"] for row in agent.infer([{"x": row.tolist()} for row in x])])
        (choice,) = agent.pipeline["providers"].values()
    np.testing.assert_allclose(answers, x @ WEIGHTS, rtol=1e-5, atol=1e-5)
    assert choice["engine"] == "tflite-runtime 2.14.0, XNNPACK" and choice["threads"] >= 1


def test_a_model_that_is_too_new_for_tflite_runtime_is_refused_at_its_trial_in_one_line(
    python: Path, tmp_path: Path
) -> None:
    made = layout(tmp_path, tflite_models.dense(WEIGHTS, version=12))
    done = call(python, environ_of(made, host_target()), "run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "model 'm' does not load in tflite-runtime 2.14.0: it needs FULLY_CONNECTED version 12, which this release "
        "does not have: convert the model with an older TensorFlow, or run it where ai-edge-litert is as new as the "
        "converter"
    )


OPEN = """
import sys
from pathlib import Path
from edgepack.errors import RuntimeFailed
from runtimes.tflite_engine import Engine
try:
    Engine.here().open(Path(sys.argv[1]), "m", 1)
except RuntimeFailed as error:
    print(error)
"""


def test_with_a_numpy_that_it_was_not_built_for_the_error_says_which_it_needs(tmp_path: Path) -> None:
    target = traits(tmp_path, host_target().arch)
    python = engine_python("numpy-2", [*(set(requirements(target)) - {"numpy<2"}), "numpy>=2"], PYTHON)
    (tmp_path / "m.tflite").write_bytes(tflite_models.dense(WEIGHTS))
    command = [str(python), "-c", OPEN, str(tmp_path / "m.tflite")]
    done = subprocess.run(command, env=engine_environ(), capture_output=True, text=True, timeout=120)
    assert re.fullmatch(
        r"model 'm' does not load in tflite-runtime 2.14.0: it was not built for numpy 2\.[0-9.]+: install numpy<2, or "
        r"ai-edge-litert\n",
        done.stdout,
    ), done.stdout + done.stderr


@pytest.mark.parametrize("arch", ["x86", "arm"])
def test_a_target_that_says_so_has_wheels_of_tflite_runtime_and_the_numpy_it_needs(arch: str, tmp_path: Path) -> None:
    target = traits(tmp_path, arch)
    found = {name: offers[0] for name, offers in resolve(target, requirements(target), None, os.environ).items()}
    assert "ai-edge-litert" not in found and "onnxruntime" not in found
    assert target.machine in found["tflite-runtime"].filename
    assert found["numpy"].version.startswith("1.26.") and target.machine in found["numpy"].filename
    assert "pyarrow" in found
