"""Quantized networks, from the file that a framework saved to the agent's socket; pipelines and shadows of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from arch.target import host_target
from bundle.bundle import bundles
from bundle.losses import losses
from bundle.store import OpenBundle, unpack
from columns.columns import Columns
from edgepack.commands.bundle import command as bundle_command
from edgepack.commands.check import command as check_command
from edgepack.commands.inspect import command as inspect_command
from edgepack.errors import BadInput, EdgepackError
from packager.package import package
from packager.project import Project
from runtimes.trial import run_trial
from tests.edge_agent.test_doors_agree import DOORS
from tests.frameworks.conftest import Bundled, project
from tests.frameworks.test_doors_networks import serving
from tests.frameworks.test_networks import NATIVE
from tests.make import onnx_model, save
from tests.packager.test_optimize import network, real_rows

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "examples/text-triage"
Bundling = Callable[[str, Callable[[Path], Path]], Bundled]

# network → how it may be quantized, and which of its operators are
NETWORKS = [
    ("dense.keras", "dynamic", {"Gemm": 2}),
    ("picture.keras", "static", {"Conv": 1, "Gemm": 1}),
    ("mlp.pt", "dynamic", {"Gemm": 2}),
    ("cnn.pth", "static", {"Conv": 1, "Gemm": 1}),
]


def optimize(quantize: str, tolerance: float = 0.05) -> str:
    return f'optimize = {{ quantize = "{quantize}", tolerance = {tolerance} }}\n'


@pytest.mark.parametrize(("name", "quantize", "operators"), NETWORKS, ids=[name for name, _, _ in NETWORKS])
def test_the_agent_answers_as_far_from_the_original_as_the_parity_report_says(
    name: str, quantize: str, operators: dict[str, int], networks: Path, bundled: Bundling, cache: Path, tmp_path: Path
) -> None:
    toml = optimize(quantize) + NATIVE[name][0]
    found = bundled(f"{quantize}-{name}", lambda folder: project(networks / name, folder, toml))
    told = found.parity["optimize"]["model"]
    assert told["operators"] == operators and found.parity["steps"]["model"]["runtime"] == "onnx"
    golden = OpenBundle(found.folder).golden()
    assert golden.outputs is not None
    with serving(found, cache, tmp_path) as served:

        def asked(rows: Columns) -> Columns:
            answer = DOORS["infer"](served, rows)
            schema = golden.outputs.schema if golden.outputs else rows.schema
            return Columns.of(schema, {each: np.array(answer[each], np.float32) for each in schema.names})

        together = losses(golden.outputs, asked(golden.inputs))
        alone = Columns.concat([asked(golden.inputs.slice(row, row + 1)) for row in range(golden.rows)])
    for field, single in losses(golden.outputs, alone).items():
        worse = max(together[field].of_range, single.of_range)
        assert 0 < worse <= 0.05 and worse == pytest.approx(told["fields"][field]["of_range"], rel=1e-3)
    assert run_trial(found.folder).passed


def lines(folder: Path, toml: str, golden: Any = None) -> Path:
    """A project around two networks of the quick suite's kind, `a.onnx` and `b.onnx`."""
    for seed, name in enumerate("ab"):
        save(network(seed), folder / f"{name}.onnx")
    (folder / "edgepack.toml").write_text(toml)
    (folder / "golden.json").write_text(json.dumps(golden or real_rows()))
    return folder


def test_a_model_and_its_shadow_are_quantized_each_as_it_asks(cache: Path, tmp_path: Path) -> None:
    toml = (
        '[[steps]]\nname = "main"\nmodel = "a.onnx"\nshadow = ["next", "same"]\n'
        + optimize("dynamic")
        + "[models.next]\n"
        'model = "b.onnx"\n' + optimize("static") + '[models.same]\nmodel = "a.onnx"\n'
    )
    found = package(Project.open(lines(tmp_path / "p", toml)), [host_target()], cache=cache)
    (step,) = found.spec.steps
    assert step.routing is not None and step.quantized == "dynamic"
    assert {name: each.quantized for name, each in step.routing.models.items()} == {"next": "static", "same": None}
    assert {name: each["quantize"] for name, each in found.parity["optimize"].items()} == {
        "main": "dynamic",
        "next": "static",
    }
    assert found.parity["loss"]["fields"]["scores"]["of_range"] > 0 and found.spec.loss == 0.1
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_a_quantized_shadow_alone_does_not_loosen_what_a_device_is_held_to(cache: Path, tmp_path: Path) -> None:
    toml = '[[steps]]\nname = "main"\nmodel = "a.onnx"\nshadow = ["small"]\n[models.small]\nmodel = "a.onnx"\n'
    found = package(Project.open(lines(tmp_path / "p", toml + optimize("dynamic"))), [host_target()], cache=cache)
    assert found.spec.loss is None and "loss" not in found.parity and list(found.parity["optimize"]) == ["small"]
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_a_later_step_is_calibrated_with_what_the_steps_before_make_of_the_rows(cache: Path, tmp_path: Path) -> None:
    shape = ["n", 1, 4, 4]
    factor = {"hundred": np.float32(100)}
    nodes = [helper.make_node("Mul", ["image", "hundred"], ["image_100"])]
    larger = onnx_model(nodes, {"image": ("float32", shape)}, {"image_100": ("float32", shape)}, factor)
    toml = (
        '[[steps]]\nmodel = "larger.onnx"\n[[steps]]\nname = "net"\nmodel = "a.onnx"\n'
        'tensor_fields = ["image_100"]\n' + optimize("static", 0.03)
    )
    save(larger, tmp_path / "p" / "larger.onnx")
    found = package(Project.open(lines(tmp_path / "p", toml)), [host_target()], cache=cache)
    told = found.parity["optimize"]["net"]
    assert told["calibration"] == "24 golden rows" and told["fields"]["scores"]["of_range"] <= 0.03
    assert found.parity["loss"]["fields"].keys() == {"scores", "kind"}
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_weights_beside_a_model_are_inside_the_quantized_one(cache: Path, tmp_path: Path) -> None:
    folder = lines(tmp_path / "p", '[[steps]]\nname = "net"\nmodel = "out.onnx"\n' + optimize("dynamic"))
    onnx.save(network(), folder / "out.onnx", save_as_external_data=True, location="out.bin", size_threshold=0)
    found = package(Project.open(folder), [host_target()], cache=cache)
    files = [path for path in bundles(found.index)[0].blobs if path.startswith("models/")]
    assert files == ["models/net/out.onnx"] and found.parity["optimize"]["net"]["operators"] == {"Gemm": 1, "MatMul": 1}


def test_check_shows_what_is_lost_and_refuses_more_with_exit_code_2(tmp_path: Path) -> None:
    folder = lines(tmp_path / "p", '[[steps]]\nname = "net"\nmodel = "a.onnx"\n' + optimize("dynamic"))
    done = CliRunner().invoke(check_command, [str(folder), "--json"])
    said = json.loads(done.stdout)
    assert said["steps"][0]["parity"]["optimize"]["fields"]["scores"]["of_range"] <= 0.05
    assert {"optimize.quantizes", "optimize.agrees"} <= {each["key"] for each in said["checks"]}
    assert CliRunner().invoke(bundle_command, [str(folder), "-o", str(tmp_path / "net.tar")]).exit_code == 0
    assert "  net: quantized, dynamic" in CliRunner().invoke(inspect_command, [str(tmp_path / "net.tar")]).stdout
    lines(folder, '[[steps]]\nname = "net"\nmodel = "a.onnx"\n' + optimize("dynamic", 1e-6))
    refused = CliRunner().invoke(check_command, [str(folder)])
    assert isinstance(refused.exception, EdgepackError) and "tolerance 1e-06: raise tolerance" in str(refused.exception)
    assert "FAIL optimize.agrees" in refused.stdout and "fix: raise tolerance or remove optimize" in refused.stdout


def test_a_native_pipeline_of_hugging_face_is_quantized_dynamic(cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLE, tmp_path / "text-triage")
    toml = (folder / "edgepack.toml").read_text()
    (folder / "edgepack.toml").write_text(toml.replace("[steps.input]", optimize("dynamic") + "[steps.input]"))
    found = package(Project.open(folder), [host_target()], cache=cache)
    (step,) = found.spec.steps
    assert step.task is not None and step.quantized == "dynamic"
    told = found.parity["optimize"]["text-triage"]
    assert told["size_bytes"]["after"] < told["size_bytes"]["before"] and told["fields"]["label"]["label_flips"] == 0
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed
    (folder / "edgepack.toml").write_text(toml.replace("[steps.input]", optimize("static") + "[steps.input]"))
    with pytest.raises(BadInput, match='cannot be calibrated with: use quantize = "dynamic"'):
        package(Project.open(folder), [host_target()], cache=cache)


def test_rows_that_were_made_and_a_model_that_grows_are_warned_of(networks: Path, cache: Path, tmp_path: Path) -> None:
    toml = optimize("static", 0.2) + NATIVE["mlp.pt"][0]
    found = package(Project.open(project(networks / "mlp.pt", tmp_path / "p", toml)), [host_target()], cache=cache)
    told = found.parity["optimize"]["model"]
    assert told["calibration"] == "24 rows made for it"
    assert any("step 'model' is calibrated with 24 rows made for it" in note for note in found.notes)
    sizes = told["size_bytes"]
    assert any(f"became larger: {sizes['before']} bytes, now {sizes['after']}" in note for note in found.notes)
