"""Networks, TFLite files and pipelines as a device serves them: through every door the answers that the library which
made them gives by itself, to one row, to seven and, natively, to ten thousand.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.golden import compare
from bundle.pipeline import LogPolicy
from bundle.store import OpenBundle
from columns.columns import Columns
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from packager.frameworks.hugging_face import PREFIX
from packager.frameworks.hugging_face_tasks import TASKS
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import VERSION, Front, Served
from tests.edge_agent.test_doors_agree import DOORS
from tests.frameworks import test_hugging_face, test_networks
from tests.frameworks.conftest import Bundled, project
from tests.frameworks.test_networks import LEFT_RIGHT, fields

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

Bundling = Callable[[str, Callable[[Path], Path]], Bundled]
COUNTS = (1, 7, 10_000)
TENSORS = ("infer", "arrow file", "oip", "oip raw")
VALUES = ("infer", "arrow file", "predict")  # of texts, and lists of any length
LEVELS = {"int8.tflite": 1}  # kernels of two releases may round to neighbours


def outputs(**types: str) -> str:
    return fields(**types).replace("[steps.input]", "\n[steps.output]")


# inputs and outputs of one type, under the model's own names in another order than its own
SWAPPED = fields(a="list<float32>[2]", b="list<float32>[2]") + outputs(
    product="list<float32>[2]", difference="list<float32>[2]"
)
MINUS = ("minus.pt", "minus.keras", "minus.h5", "less.pt", "less.keras")

# network, and what is special about it → lines of the step: its schema, where the file does not carry one
SCHEMAS = {
    **{name: toml for name, (toml, _, _) in test_networks.NATIVE.items()},
    **{name: toml for name, (toml, _) in test_networks.WORKERS.items() if name != "restless.pt"},
    "steps.keras fixed": test_networks.NATIVE["steps.keras"][0],
    "traced.pt": LEFT_RIGHT,
    "told.pt": LEFT_RIGHT,
    "halves.pt": fields(x="list<float32>[4]"),
    **dict.fromkeys(MINUS, SWAPPED),
    "pair.keras": "",
    "fixed.keras": "",
    "order.keras": "",
    "order.keras named": outputs(a="list<float32>[2]", y="list<float32>[2]"),
    "code.keras named": outputs(a="list<float32>[4]", y="list<float32>[4]"),
    "named.pt named": LEFT_RIGHT + outputs(label="int64", score="list<float32>[3]"),
}
WORKERS = {
    "named.pt": "its answer is a dict",
    "told.pt": "its answer is a dict",
    "wide.pt": "field 'x' is float64",
    "steps.keras": "answers rows of length 11 differently",
    "code.keras": "Lambda layer",
    "less.pt": "its answer is a dict",
    "less.keras": "Lambda layer",
    "gamma": "Lgamma",
}
TENSORFLOW = {
    **dict.fromkeys(("pictures.keras", "pictures.h5", "line", "two", "fixed", "gamma", "exported"), ""),
    "line named": outputs(scores="list<float32>[2]", kind="int64"),
    "two named": fields(b="list<float32>[4]", a="int64"),
    "gamma named": fields(b="list<float32>[3]", a="list<float32>[3]")
    + outputs(whole="list<float32>[3]", above="int64"),
}
ZIPPED = {"two": "", "exported": "model"}  # SavedModel → the folder at the top of its zip
TFLITE = ("float.tflite", "dynamic.tflite", "int8.tflite", "several.tflite")


@contextmanager
def serving(found: Bundled, cache: Path, folder: Path) -> Iterator[Served]:
    """An agent's server before a bundle; what its workers import was made for the packager's trials."""
    with Served(folder, Front()) as served:
        loaded = LoadedPipeline.open(found.folder, cache / "workers")
        served.spools["it"] = spool = Spool(folder / "spool", LogPolicy(durability="relaxed"), "here")
        served.serving.switch("it", ActivePipeline("it", VERSION, "sha256:0", loaded, spool, "here"))
        yield served
    for wheel in found.folder.rglob("*.whl"):  # a quarter of a gigabyte each time; who shares the bundle reads its spec
        wheel.unlink()


def check_doors(found: Bundled, kept: Path, cache: Path, folder: Path) -> None:
    """Ask through every door, as often as the library was asked; the fields have the names that it was asked by."""
    with np.load(f"{kept}.npz", allow_pickle=False) as arrays:
        every = dict(arrays)
    level = LEVELS.get(kept.name, 0)
    with serving(found, cache, folder) as served:
        loaded = served.serving.pipelines[0].loaded
        rows = Columns.of(loaded.input, {name: every[f"in.{name}"] for name in loaded.input.names})
        for count in (count for count in COUNTS if count <= (rows.rows if found.step.runtime != "python" else 7)):
            expected = {name.partition(".")[2]: every[name] for name in every if name.startswith(f"{count}.")}
            assert set(expected) == set(loaded.output.names)
            for door in TENSORS:
                answer = DOORS[door](served, rows.slice(0, count))
                for name, wanted in expected.items():
                    check_column(np.array(answer[name], wanted.dtype), wanted, level, f"{door}, {count} rows, {name}")


def check_column(answer: Any, wanted: Any, level: int, where: str) -> None:
    assert answer.shape == wanted.shape, where
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-6, err_msg=where)
    else:
        assert np.abs(answer.astype(int) - wanted.astype(int)).max() <= level, where


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_network_answers_like_its_library_through_every_door(
    name: str, networks: Path, bundled: Bundling, cache: Path, tmp_path: Path
) -> None:
    model = networks / name.partition(" ")[0]
    found = bundled(name, lambda folder: project(model, folder, SCHEMAS[name]))
    why = WORKERS.get(name.removesuffix(" named"))
    assert found.step.runtime == ("python" if why else "onnx"), found.step.reason
    assert (why or "") in (found.step.reason or "")
    check_doors(found, model, cache, tmp_path)


@pytest.mark.parametrize("name", sorted(TENSORFLOW))
def test_what_tensorflow_saved_answers_like_it_through_every_door(
    name: str, saved: Path, bundled: Bundling, cache: Path, tmp_path: Path
) -> None:
    model = saved / name.partition(" ")[0]

    def made(folder: Path) -> Path:
        if model.is_file():
            return project(model, folder)
        if TENSORFLOW[name]:
            shutil.copytree(model, folder / model.name)
            (folder / "edgepack.toml").write_text(f'[[steps]]\nmodel = "{model.name}"\n{TENSORFLOW[name]}\n')
            return folder
        if name not in ZIPPED:
            return Path(shutil.copytree(model, folder))
        inside = shutil.copytree(model, tmp_path / "in" / ZIPPED[name], dirs_exist_ok=True)
        assert inside.is_dir()
        return project(Path(shutil.make_archive(str(tmp_path / name), "zip", tmp_path / "in")), folder)

    found = bundled(f"tensorflow-{name}", made)
    why = WORKERS.get(model.name)
    assert found.step.runtime == ("python" if why else "onnx"), found.step.reason
    assert (why or "") in (found.step.reason or "")
    check_doors(found, model, cache, tmp_path)


STEP = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"input": -input_data["raw"]}
"""
TWO_STEPS = """
[[steps]]
name = "first"
model = "first"
[steps.input]
raw = "list<float32>[4]"
[steps.output]
input = "list<float32>[4]"
[[steps]]
name = "second"
model = "mlp.pt"
[steps.input]
input = "list<float32>[4]"
[golden]
rows = "golden.json"
"""


def test_a_network_behind_a_python_step_answers_like_its_library(
    networks: Path, bundled: Bundling, cache: Path, tmp_path: Path
) -> None:
    def made(folder: Path) -> Path:
        (folder / "first").mkdir(parents=True)
        (folder / "first/step.py").write_text(STEP)
        shutil.copyfile(networks / "mlp.pt", folder / "mlp.pt")
        (folder / "golden.json").write_text('[{"in.raw": [1, 2, 3, 4]}, {"in.raw": [0, -1, 0.5, 9]}]')
        (folder / "edgepack.toml").write_text(TWO_STEPS)
        return folder

    found = bundled("two-steps", made)
    assert found.parity["runtime"] == "python, onnx" and found.parity["steps"]["second"]["rows"] == 2
    with np.load(networks / "mlp.pt.npz") as kept, serving(found, cache, tmp_path) as served:
        rows = Columns.of(served.serving.pipelines[0].loaded.input, {"raw": -kept["in.input"]})
        for count in (1, 7):
            for door in TENSORS:
                answer = DOORS[door](served, rows.slice(0, count))
                check_column(np.array(answer["output"], np.float32), kept[f"{count}.output"], 0, door)


@pytest.mark.parametrize("name", TFLITE)
def test_a_tflite_file_answers_like_tensorflows_interpreter_through_every_door(
    name: str, saved: Path, bundled: Bundling, cache: Path, tmp_path: Path
) -> None:
    found = bundled(name, lambda folder: project(saved / name, folder))
    assert found.step.runtime == "tflite"
    check_doors(found, saved / name, cache, tmp_path)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_pipeline_answers_like_its_library_through_every_door(
    task: str, pipelines: Path, bundled: Bundling, cache: Path, tmp_path: Path
) -> None:
    """The golden rows are those of `pipeline_answers`: a plain pipeline gave the answers."""
    more = test_hugging_face.FIELDS.get(task)
    found = bundled(task, lambda folder: test_hugging_face.project(pipelines / task, folder, PREFIX + task, more))
    golden = OpenBundle(found.folder).golden()
    asked = json.loads((pipelines / task / "golden.json").read_text())
    assert golden.outputs is not None and golden.rows == len(asked) >= 2
    with serving(found, cache, tmp_path) as served:
        schema = served.serving.pipelines[0].loaded.output
        for count in (1, golden.rows):
            for door in VALUES:
                answer = DOORS[door](served, golden.inputs.slice(0, count))
                assert answer.keys() == {name[4:] for name in asked[0] if name.startswith("out.")}
                comparison = compare(golden.outputs.slice(0, count), Columns.of(schema, answer), 1e-5)
                assert comparison.passed, (door, comparison)
