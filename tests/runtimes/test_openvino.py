"""The real agent with ONNX Runtime's OpenVINO build, on this machine's CPU, in an environment of its own."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from arch.options import VARIABLE, Options
from arch.providers import CPU, OPENVINO
from arch.target import Target
from arch.traits import traits_of
from buildx.requirements import requirements_for
from bundle.bundle import pack
from bundle.pipeline import PipelineSpec, Resources, StepSpec
from oci.layout import write_layout
from packager.package import package
from packager.project import Project
from runtimes.onnx import OnnxRuntime
from tests.runtimes.agent_elsewhere import Running, running
from tests.runtimes.engine_environment import CHECKOUT, engine_python

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(300),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="onnxruntime-openvino has wheels for x86-64 alone"),
]

TRAITS = traits_of(Target("x86", "openvino"))


@pytest.fixture(scope="module")
def python() -> Path:
    requirements = requirements_for({"onnx"}, TRAITS.replace, TRAITS.left_out)
    return engine_python("openvino", requirements, f"{sys.version_info.major}.{sys.version_info.minor}")


@contextmanager
def agent(python: Path, layout: Path, options: Options | None = None) -> Iterator[Running]:
    """Run it as an image of x86/openvino does."""
    said = (options or Options.of_target(TRAITS)).said()
    providers = {"EDGEPACK_PROVIDERS": ",".join(TRAITS.providers), VARIABLE: said}
    with running(python, layout, TRAITS.target, **providers) as found:
        yield found


def tensor(name: str, width: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])


def model(given: str, asked: str, nodes: list[Any], weights: Mapping[str, Any] | None = None) -> bytes:
    made = helper.make_graph(
        nodes, "g", [tensor(given, 4)], [tensor(asked, 4)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(onnx.helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())


def dense(given: str) -> Any:
    return helper.make_node("MatMul", [given, "w"], ["h"])


def scaler(given: str, asked: str) -> Any:
    """Of the operators for classic models, which OpenVINO does not have."""
    return helper.make_node(
        "Scaler", [given], [asked], domain="ai.onnx.ml", offset=[1.0, 2.0, 3.0, 4.0], scale=[2.0, 0.5, 1.0, 3.0]
    )


WEIGHTS = {"w": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)}
MODELS = {
    "whole": model("x", "a", [dense("x"), helper.make_node("Tanh", ["h"], ["a"])], WEIGHTS),
    "none": model("a", "b", [scaler("a", "b")]),
    "part": model("b", "c", [dense("b"), scaler("h", "c")], WEIGHTS),
}  # fmt: skip
ROWS = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
FIELDS = {"whole": ("x", "a"), "none": ("a", "b"), "part": ("b", "c")}


def step(name: str) -> StepSpec:
    given, asked = ({field: "list<float32>[4]"} for field in FIELDS[name])
    return StepSpec(name=name, model=f"{name}.onnx", framework="onnx", runtime="onnx", input=given, output=asked)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return layout(tmp_path)


def layout(tmp_path: Path, **spec: Any) -> Path:
    """The layout of a pipeline of three steps: OpenVINO takes the whole of the first, nothing of the second, and a part
    of the third.
    """
    files = {f"{name}.onnx": tmp_path / f"{name}.onnx" for name in MODELS}
    for name, data in MODELS.items():
        files[f"{name}.onnx"].write_bytes(data)
    golden = json.dumps([{"in.x": ROWS[0].tolist(), "out.c": on_the_cpu(tmp_path, ROWS[:1])[0].tolist()}]).encode()
    index = pack(PipelineSpec("three", [step(name) for name in MODELS], **spec), files, golden, [TRAITS.target])
    write_layout(index, tmp_path / "layout")
    return tmp_path / "layout"


def on_the_cpu(folder: Path, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the three steps give in the engine that is installed here."""
    for name, (given, asked) in FIELDS.items():
        runtime = OnnxRuntime.load(folder / f"{name}.onnx", step(name))
        rows = runtime.infer({given: rows}, len(rows))[asked]
        runtime.close()
    return rows


def test_a_network_answers_on_openvino_as_on_the_cpu_within_the_gates_tolerance(python: Path, tmp_path: Path) -> None:
    project = Project.open(CHECKOUT / "examples" / "digits-camera")
    packaged = package(project, [TRAITS.target])
    write_layout(packaged.index, tmp_path / "layout")
    golden = json.loads((project.root / "golden.json").read_text())[:50]
    with agent(python, tmp_path / "layout") as running:
        answers = running.infer([{"image": row["in.image"]} for row in golden])
        (choice,) = running.pipeline["providers"].values()
    assert choice["used"] == [OPENVINO, CPU] and choice["skipped"] == {}
    assert choice["engine"].startswith("onnxruntime 1.") and choice["threads"] == 1  # as [resources] cpus says
    assert set(choice["nodes"]) == {OPENVINO} and choice["nodes"][OPENVINO]["Conv"] >= 1
    runtime = OnnxRuntime.load(project.root / "digits-camera.onnx", packaged.spec.steps[0])
    expected = runtime.infer({"image": np.array([row["in.image"] for row in golden], np.float32)}, len(golden))
    runtime.close()
    for name, array in expected.items():
        got = np.array([row[name] for row in answers])
        np.testing.assert_allclose(got.reshape(array.shape), array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_what_openvino_leaves_of_a_model_is_told_wherever_one_looks(python: Path, three: Path) -> None:
    with agent(python, three) as running:
        answers = np.array([row["c"] for row in running.infer([{"x": row.tolist()} for row in ROWS])])
        np.testing.assert_allclose(answers, on_the_cpu(three.parent, ROWS), rtol=1e-5, atol=1e-5)
        providers = running.pipeline["providers"]
        told, metrics = running.call("status").stdout, running.get("/metrics").text
        page, models = running.get("/", Accept="text/html").text, running.get("/models").json()["models"]
        doctor = running.call("doctor")
    why = "it takes none of this model's nodes (Scaler 1)"
    assert {name: choice["used"] for name, choice in providers.items()} == {
        "whole": [OPENVINO, CPU], "none": [CPU], "part": [OPENVINO, CPU],
    }  # fmt: skip
    assert providers["none"]["skipped"] == {OPENVINO: why}
    assert providers["part"]["nodes"] == {OPENVINO: {"MatMul": 1}, CPU: {"Scaler": 1}}
    part = f"{OPENVINO} (1 of 2 nodes, others: Scaler 1)"
    assert f"part computes on {part}" in told and f"none not on {OPENVINO}: {why}" in told
    assert f"part: {part}" in page
    assert {each["name"]: each["providers"] for each in models}["none"] == [CPU]
    assert {each["name"]: each["skipped"] for each in models}["none"] == {OPENVINO: why}
    assert f'edgepack_provider{{pipeline="three",step="none",provider="{OPENVINO}",reason="{why}"}} 0' in metrics
    assert f'edgepack_provider_nodes{{pipeline="three",step="part",provider="{CPU}"}} 1' in metrics
    assert f"ok    provider          {OPENVINO} (device_type CPU, precision FP32)" in doctor.stdout
    assert f"--    model             pipeline 'three', model 'none' is not on {OPENVINO}: {why}" in doctor.stdout
    assert doctor.returncode == 0, doctor.stdout
    warnings = [line for line in running.said.read_text().splitlines() if "execution provider not used" in line]
    assert len(warnings) == 1 and "step=none" in warnings[0], warnings


def test_replicas_compute_on_openvino_in_their_sandbox_too(python: Path, tmp_path: Path) -> None:
    with agent(python, layout(tmp_path, resources=Resources(replicas=2))) as running:
        answers = np.array([row["c"] for row in running.infer([{"x": row.tolist()} for row in ROWS])])
        found = running.pipeline
    np.testing.assert_allclose(answers, on_the_cpu(tmp_path, ROWS), rtol=1e-5, atol=1e-5)
    assert set(found["sandbox"]) == set(MODELS)
    assert [found["providers"][name]["used"][0] for name in MODELS] == [OPENVINO, CPU, OPENVINO]


def test_a_device_that_is_not_here_is_said_once_and_the_cpu_answers(python: Path, three: Path) -> None:
    if list(Path("/dev").glob("dri/renderD*")):
        pytest.skip("this machine has a graphics device")
    with agent(python, three, Options({OPENVINO: {"device_type": "GPU"}})) as running:
        answers = np.array([row["c"] for row in running.infer([{"x": row.tolist()} for row in ROWS])])
        providers, doctor = running.pipeline["providers"], running.call("doctor")
    np.testing.assert_allclose(answers, on_the_cpu(three.parent, ROWS), rtol=1e-5, atol=1e-5)
    for choice in providers.values():
        assert choice["used"] == [CPU]
        assert choice["skipped"][OPENVINO].startswith("OpenVINO finds no GPU here, only CPU: is the container given")
    assert doctor.returncode == 1
    assert f"FAIL  provider          {OPENVINO} is not used: OpenVINO finds no GPU here" in doctor.stdout
    warnings = [line for line in running.said.read_text().splitlines() if "execution provider not used" in line]
    assert len(warnings) == 1 and "step=whole,none,part" in warnings[0], warnings


def test_what_was_compiled_is_kept_beside_the_bundles_and_goes_with_its_own(python: Path, three: Path) -> None:
    kept = Options({OPENVINO: {"device_type": "CPU"}}, {OPENVINO: {"cache_dir": "{cache}"}})
    compiled, gone = three.parent / "data" / "compiled", "0" * 64
    (compiled / gone).mkdir(parents=True)
    with agent(python, three, kept) as running:
        manifest = running.pipeline["manifest"]
        answers = np.array([row["c"] for row in running.infer([{"x": row.tolist()} for row in ROWS])])
    np.testing.assert_allclose(answers, on_the_cpu(three.parent, ROWS), rtol=1e-5, atol=1e-5)
    assert [path.name for path in compiled.iterdir()] == [manifest.removeprefix("sha256:")]
    assert any(path.is_file() for path in compiled.rglob("*"))
