"""Models whose weights become integers: proven, carried, held to on a device; refused where they answer otherwise."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import helper

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import OpenBundle, unpack
from columns import Columns
from columns.schema import Schema
from edgepack.commands.check import report
from edgepack.commands.inspect import command as inspect_command
from edgepack.errors import BadInput, RuntimeFailed
from packager import Project, package, parity
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.convert.fields import Unsuited
from packager.convert.quantizing.calibration import Rows
from packager.convert.quantizing.graph import check_worth, flatten_biases, opened
from packager.environments import Environment, Kept
from packager.inspect import inspect_step
from packager.optimize.proof import Losses
from packager.optimize.quantization import quantized
from packager.package import Packaged
from runtimes.trial import run_trial
from tests.make import identity, linear, onnx_model, project, save, spec
from tests.tflite_models import dense

WIDTH = 16
STEP = '[pipeline]\nname = "small"\n[[steps]]\nname = "net"\nmodel = "model.onnx"\n'


@pytest.fixture(scope="module")
def here() -> Environment:
    """This very environment: it has onnx and onnxruntime, so nothing need be made."""
    return Environment(Path(sys.prefix), Kept("here", platform.python_version(), {}, 0, 0.0, "here"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def network(seed: int = 0) -> onnx.ModelProto:
    """A convolution, a dense layer, and the class beside the scores: something for each way to quantize."""
    draw = np.random.default_rng(seed)
    weights = {
        "filter": draw.normal(0, 0.4, (8, 1, 3, 3)).astype(np.float32),
        "dense": draw.normal(0, 0.2, (8 * WIDTH, 64)).astype(np.float32),
        "last": draw.normal(0, 0.2, (64, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "filter"], ["seen"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["seen"], ["bent"]),
        helper.make_node("Flatten", ["bent"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["again"]),
        helper.make_node("MatMul", ["again", "last"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["kind"], axis=1, keepdims=0),
    ]
    return onnx_model(
        nodes,
        {"image": ("float32", ["n", 1, 4, 4])},
        {"scores": ("float32", ["n", 4]), "kind": ("int64", ["n"])},
        weights,
    )


def real_rows(count: int = 24) -> list[dict[str, Any]]:
    draw = np.random.default_rng(7)
    return [{"in.image": draw.normal(size=(1, 4, 4)).astype(np.float32).tolist()} for _ in range(count)]


@dataclass(frozen=True)
class Made:
    """A project with a quantized model, packaged: what came of it, and its bundle as a device has it."""

    packaged: Packaged
    checklist: Checklist
    bundle: Path


@pytest.fixture(scope="module")
def dynamic(here: Environment, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, checklist = tmp_path_factory.mktemp("dynamic"), Checklist()
    toml = STEP + 'optimize = { quantize = "dynamic" }'
    opened_ = Project.open(project(folder / "p", toml, network(), real_rows()))
    found = package(opened_, [host_target()], cache=cache, quantizing=here, checklist=checklist)
    return Made(found, checklist, unpack(bundles(found.index)[0], folder / "bundle"))


def test_a_quantized_model_is_smaller_and_says_what_it_lost(dynamic: Made) -> None:
    found, told = dynamic.packaged, dynamic.packaged.parity["optimize"]["net"]
    assert told["operators"] == {"Gemm": 1, "MatMul": 1} and told["calibration"] is None
    assert told["size_bytes"]["after"] < 0.4 * told["size_bytes"]["before"]
    assert 0 < told["fields"]["scores"]["of_range"] <= told["tolerance"] and told["fields"]["kind"]["label_flips"] == 0
    assert found.parity["loss"]["allowed"] == found.spec.loss == 2 * told["tolerance"]
    assert found.spec.steps[0].quantized == told["quantize"] == "dynamic"
    made = {check.key for check in dynamic.checklist.checks if check.passed}
    assert {"optimize.quantizes", "optimize.agrees"} <= made
    assert report(dynamic.checklist, found)["steps"][0]["parity"]["optimize"] == told
    with found.referrers[0].layers[0].open() as referrer:
        assert json.load(referrer)["optimize"]["net"] == told
    assert any("quantized, dynamic: 1 Gemm, 1 MatMul" in line for line in parity.table(found.parity))


def test_a_device_holds_a_quantized_model_to_what_the_original_answered(dynamic: Made, tmp_path: Path) -> None:
    golden = OpenBundle(dynamic.bundle).golden()
    session = onnxruntime.InferenceSession(save(network(), tmp_path / "o.onnx"), providers=["CPUExecutionProvider"])
    scores, kinds = session.run(None, {"image": np.asarray(golden.inputs["image"])})
    assert golden.outputs is not None and np.allclose(golden.outputs["scores"], scores, atol=1e-5)
    assert (np.asarray(golden.outputs["kind"]) == kinds).all()
    trial = run_trial(dynamic.bundle)
    assert trial.passed and trial.max_abs > 1e-4, "the device has integers"


def test_a_damaged_quantized_model_does_not_pass_on_a_device(dynamic: Made, tmp_path: Path) -> None:
    bundle = shutil.copytree(dynamic.bundle, tmp_path / "bundle")
    path = next(bundle.glob("models/net/*.onnx"))
    model = onnx.load(path)
    scale = next(each for each in model.graph.initializer if each.name.endswith("_scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 1.5, scale.name))
    path.chmod(0o644)
    path.write_bytes(model.SerializeToString())
    trial = run_trial(bundle)
    assert not trial.passed and "of the range" in (trial.reason or "") and "allowed 0.04" in (trial.reason or "")


def test_a_bundle_without_quantized_models_says_nothing_of_them() -> None:
    said = spec().encode()
    assert b"loss" not in said and b"quantized" not in said


def inspected(folder: Path, model: onnx.ModelProto) -> ModelArtifact:
    opened_ = Project.open(project(folder, STEP, model))
    return inspect_step(opened_.steps[0], opened_.root, Checklist(), folder / "cache")


def test_the_last_bits_of_a_machine_seldom_change_the_bytes(here: Environment, tmp_path: Path) -> None:
    model = inspected(tmp_path / "p", network())
    image = np.random.default_rng(3).normal(size=(6, 1, 4, 4)).astype(np.float32)
    once, again = (
        quantized(model, "static", Columns.of(model.input, {"image": rows}), here, tmp_path / name)
        for name, rows in (("one", image), ("two", np.nextafter(image, np.float32(9))))
    )
    assert once.operators == {"Conv": 1, "Gemm": 1, "MatMul": 1}
    assert once.file != again.file and once.file.read_bytes() == again.file.read_bytes()
    assert once.file.stat().st_size < 0.4 * (tmp_path / "p" / "model.onnx").stat().st_size


def test_a_quantized_model_is_found_in_a_cache_that_cannot_be_written(
    here: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = inspected(tmp_path / "p", network())
    rows = Columns.of(model.input, {"image": np.ones((2, 1, 4, 4), np.float32)})
    once = quantized(model, "dynamic", rows, here, tmp_path / "cache")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr("packager.optimize.quantization.run_confined", refuse)
    assert quantized(model, "dynamic", rows, here, tmp_path / "cache") == once


@pytest.mark.parametrize("name", ["quantized.onnx", "result.json"])
@pytest.mark.timeout(60)
def test_no_file_of_a_quantization_is_taken_through_a_link_or_a_pipe(
    name: str, here: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = inspected(tmp_path / "p", linear())
    rows = Columns.of(model.input, {"tensor": np.ones((2, 3), np.float32)})
    for odd in (lambda path: path.symlink_to(tmp_path / "p" / "model.onnx"), os.mkfifo):

        def leave(module: str, job: object, file: Path, env: Environment, folder: Path, *_: object) -> None:
            (folder / "result.json").write_text("{}")
            shutil.copyfile(file, folder / "quantized.onnx")
            (folder / name).unlink()
            odd(folder / name)  # noqa: B023 - called within this turn

        monkeypatch.setattr("packager.optimize.quantization.run_confined", leave)
        with pytest.raises(RuntimeFailed, match=r"^quantizing 'model\.onnx' left no (result|model) that reads"):
            quantized(model, "dynamic", rows, here, tmp_path / "cache")


@pytest.mark.timeout(60)
def test_a_copy_that_the_child_was_given_is_not_read_after_it(
    here: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with weights outside is copied into the child's folder, where it may become anything."""
    folder = project(tmp_path / "p", STEP)
    onnx.save(linear(), folder / "model.onnx", save_as_external_data=True, location="model.bin", size_threshold=0)
    opened_ = Project.open(folder)
    model = inspect_step(opened_.steps[0], opened_.root, Checklist(), tmp_path / "cache")
    whole = save(linear(), tmp_path / "whole.onnx")

    def leave(module: str, job: object, file: Path, env: Environment, child: Path, *_: object) -> None:
        (child / "result.json").write_text("{}")
        shutil.copyfile(whole, child / "quantized.onnx")
        assert file.is_relative_to(child)
        file.unlink()
        os.mkfifo(file)

    monkeypatch.setattr("packager.optimize.quantization.run_confined", leave)
    rows = Columns.of(model.input, {"tensor": np.ones((2, 3), np.float32)})
    found = quantized(model, "dynamic", rows, here, tmp_path / "cache")
    assert found.file.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("quantize", "became"), [("dynamic", 1), ("static", 2)])
def test_only_operators_that_became_integers_are_counted(
    quantize: Any, became: int, here: Environment, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    weights = {"w": draw.normal(size=(8, 6)).astype(np.float32), "a": draw.normal(size=(5, 4)).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["a", "h"], ["y"])]
    model = onnx_model(nodes, {"x": ("float32", ["n", 4, 8])}, {"y": ("float32", ["n", 5, 6])}, weights)
    artifact = inspected(tmp_path / "p", model)
    rows = Columns.of(artifact.input, {"x": draw.normal(size=(3, 4, 8)).astype(np.float32)})
    made = quantized(artifact, quantize, rows, here, tmp_path / "cache")
    assert made.operators == {"MatMul": became}
    kept = {each.name for each in onnx.load(made.file).graph.initializer} & set(weights)
    assert len(kept) == len(weights) - became, "weights in the first place stay floats in 'dynamic'"


def test_weights_that_the_quantizer_leaves_are_no_reason_to_quantize() -> None:
    nodes = [helper.make_node("MatMul", ["a", "x"], ["y"])]
    model = onnx_model(
        nodes, {"x": ("float32", ["n", 4, 2])}, {"y": ("float32", ["n", 5, 2])}, {"a": np.ones((5, 4), np.float32)}
    )
    with pytest.raises(Unsuited, match='it has MatMul: use quantize = "static"'):
        check_worth(model, "dynamic")


def test_a_loss_over_the_tolerance_is_refused_with_its_figures() -> None:
    expected = Columns.of(Schema.parse({"y": "float32"}), {"y": np.array([0.0, 4.0], np.float32)})
    near = Columns.of(expected.schema, {"y": np.array([0.0, 3.8], np.float32)})
    found = Losses.of(expected, parity.Answers(expected, near))
    assert found.check(0.051, "step 'net', quantized,").endswith("0.05 of the range (tolerance 0.051)")
    with pytest.raises(BadInput) as refused:
        found.check(0.02, "step 'net', quantized,")
    assert str(refused.value) == (
        "step 'net', quantized, answers differently: field 'y' row 1, 0.05 of the range, 0.2 absolute, of 2 golden "
        "rows; tolerance 0.02: raise tolerance or remove optimize"
    )


def test_a_loss_of_rows_that_are_asked_together_alone_names_the_way_out() -> None:
    expected = Columns.of(Schema.parse({"y": "float32"}), {"y": np.array([0.0, 4.0], np.float32)})
    near = Columns.of(expected.schema, {"y": np.array([0.0, 3.8], np.float32)})
    with pytest.raises(BadInput, match=r'one by one it is within that, .* batch = "single" or quantize = "static"'):
        Losses.of(expected, parity.Answers(near, expected)).check(0.02, "step 'net', quantized,")
    with pytest.raises(BadInput, match=r"tolerance 0.02: these rows were made: give \[golden\] rows of real data"):
        Losses.of(expected, parity.Answers(near, near), are_made=True).check(0.02, "step 'net', quantized,")


def kept(model: onnx.ModelProto, tmp_path: Path) -> str:
    return str(save(model, tmp_path / "model.onnx"))


def test_an_old_opset_is_refused_with_the_one_that_is_needed(tmp_path: Path) -> None:
    with pytest.raises(Unsuited, match="it uses opset 11 of ai\\.onnx: quantization needs 13 or newer"):
        opened(kept(linear(opsets={"": 11}), tmp_path))


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = Path(kept(linear(), tmp_path))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Unsuited, match=r"^it does not load: DecodeError: [^\n]*$"):
        opened(str(path))


def test_what_is_quantized_already_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])]
    model = onnx_model(nodes, {"x": ("float32", ["n", 3])}, {"y": ("uint8", ["n", 3])})
    with pytest.raises(Unsuited, match="it is quantized already, it has DynamicQuantizeLinear"):
        opened(kept(model, tmp_path))


def test_a_model_with_nothing_to_quantize_says_what_it_has() -> None:
    with pytest.raises(
        Unsuited, match=r"it has nothing to quantize: 'dynamic' is for MatMul, .* it has Identity: remove"
    ):
        check_worth(identity(), "dynamic")


def test_a_bias_of_one_row_becomes_plain_numbers_unless_something_else_reads_it() -> None:
    weights = {"w": np.ones((3, 2), np.float32), "b": np.ones((1, 2), np.float32), "both": np.ones((1, 2), np.float32)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Gemm", ["x", "w", "both"], ["i"]),
        helper.make_node("Concat", ["h", "i", "both"], ["y"], axis=0),
    ]
    model = onnx_model(nodes, {"x": ("float32", ["n", 3])}, {"y": ("float32", ["m", 2])}, weights)
    flatten_biases(model)
    shapes = {each.name: list(each.dims) for each in model.graph.initializer}
    assert shapes == {"w": [3, 2], "b": [2], "both": [1, 2]}


def test_a_model_for_the_other_way_is_told_so() -> None:
    filters = {"w": np.ones((2, 1, 1, 1), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = onnx_model(nodes, {"x": ("float32", ["n", 1, 2, 2])}, {"y": ("float32", ["n", 2, 2, 2])}, filters)
    with pytest.raises(Unsuited, match='it has Conv: use quantize = "static"'):
        check_worth(model, "dynamic")
    assert check_worth(model, "static") == {"Conv": 1}


def test_a_refusal_of_the_child_reaches_the_user_as_one_line(here: Environment, tmp_path: Path) -> None:
    model = inspected(tmp_path / "p", identity())
    rows = Columns.of(model.input, {"x": np.ones((2, 3), np.float32)})
    with pytest.raises(
        BadInput, match=r"^model 'model\.onnx' cannot be quantized: it has nothing to quantize: [^\n]*$"
    ):
        quantized(model, "dynamic", rows, here, tmp_path / "cache")


def test_a_model_of_two_gibibytes_is_refused_before_it_is_read(here: Environment, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", STEP)
    onnx.save(linear(), folder / "model.onnx", save_as_external_data=True, location="model.bin", size_threshold=0)
    with (folder / "model.bin").open("r+b") as weights:
        weights.truncate(2 << 30)  # a file of holes
    opened_ = Project.open(folder)
    model = inspect_step(opened_.steps[0], opened_.root, Checklist(), tmp_path / "cache")
    rows = Columns.of(model.input, {"tensor": np.ones((2, 3), np.float32)})
    with pytest.raises(BadInput, match=r"only models below 2 GiB are quantized, remove optimize"):
        quantized(model, "dynamic", rows, here, tmp_path / "cache")


def test_a_python_step_is_refused_before_its_wheels_are_looked_for(tmp_path: Path, here: Environment) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "step.py").write_text(
        "from mac.types import InferenceData\n"
        "def process_data(input_data: InferenceData) -> InferenceData:\n    return input_data\n"
    )
    (tmp_path / "edgepack.toml").write_text(
        '[[steps]]\nname = "code"\nmodel = "code"\noptimize = { quantize = "dynamic" }\n'
        '[steps.input]\nx = "float32"\n[steps.output]\nx = "float32"\n'
    )
    with pytest.raises(
        BadInput, match=r"step 'code' has optimize and runs in python \(.*\): only models in onnxruntime"
    ):
        package(Project.open(tmp_path), [host_target()], cache=tmp_path / "cache", quantizing=here)


def test_a_step_that_becomes_a_worker_on_real_rows_is_refused(
    tmp_path: Path, here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converted step is proven again on what the steps before it make of the user's rows."""
    folder = project(tmp_path / "p", STEP + 'optimize = { quantize = "dynamic" }', network(), real_rows(2))

    def relayed(project_: object, models: list[ModelArtifact], *_: object) -> list[ModelArtifact]:
        return [replace(each, kind="network", reason="it answers differently") for each in models]

    monkeypatch.setattr(sys.modules["packager.package"], "relay", relayed)
    checklist = Checklist()
    with pytest.raises(BadInput, match=r"step 'net' has optimize and runs in python \(it answers differently\): only"):
        package(Project.open(folder), [host_target()], cache=tmp_path / "c", quantizing=here, checklist=checklist)
    assert [check.key for check in checklist.checks if not check.passed] == ["optimize.quantizes"]


def test_a_tflite_step_is_refused_with_the_way_out(tmp_path: Path, here: Environment) -> None:
    (tmp_path / "net.tflite").write_bytes(dense(np.ones((4, 3), np.float32)))
    (tmp_path / "edgepack.toml").write_text('[[steps]]\nmodel = "net.tflite"\noptimize = { quantize = "static" }\n')
    with pytest.raises(BadInput, match=r"step 'net' has optimize and runs in tflite: .* TFLite's own converter"):
        package(Project.open(tmp_path), [host_target()], cache=tmp_path / "cache", quantizing=here)


def test_inspect_says_what_is_asked_of_a_step(tmp_path: Path) -> None:
    project(tmp_path, STEP + 'optimize = { quantize = "static" }', network())
    said = json.loads(CliRunner().invoke(inspect_command, [str(tmp_path), "--json"]).stdout)
    assert said["steps"][0]["optimize"] == {"quantize": "static", "tolerance": 0.02}
    assert "optimize quantize: static" in CliRunner().invoke(inspect_command, [str(tmp_path)]).stdout


@pytest.mark.parametrize("is_free", [True, False], ids=["rows", "one tensor"])
def test_rows_are_fed_by_the_names_of_the_model_whatever_their_order(is_free: bool, tmp_path: Path) -> None:
    shape = ["n", 2] if is_free else [2, 2]
    nodes = [helper.make_node("Add", ["left", "right"], ["y"])]
    model = onnx_model(nodes, {"left": ("float32", shape), "right": ("float32", shape)}, {"y": ("float32", shape)})
    row = (2,) if is_free else (2, 2)
    np.savez(tmp_path / "rows.npz", **{"in0-0": np.zeros(row, np.float32), "in1-0": np.ones(row, np.float32)})
    fed = Rows(str(tmp_path / "rows.npz"), ["right", "left"], model.graph)
    given = fed.get_next()
    assert given is not None and fed.get_next() is None
    assert given["right"].shape == ((1, 2) if is_free else (2, 2)) and not given["right"].any()
    assert given["left"].all()
