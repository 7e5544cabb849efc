"""TFLite uploads: what the file says, what is refused, and the whole way to a proven bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch.target import Target
from bundle.bundle import bundles
from bundle.store import unpack
from columns.columns import Columns
from edgepack.errors import BadInput
from packager.detect import detect
from packager.frameworks.tflite_wire import read_tflite
from packager.package import Packaged, package
from packager.project import Project
from runtimes.pipeline import LoadedPipeline
from runtimes.trial import run_trial
from tests import tflite_models as models

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
INTEGERS = models.quantized(np.arange(12).reshape(4, 3) - 6, (0.5, 3), 0.25, (2.0, -1))
X86 = [Target("x86")]


def project(folder: Path, model: bytes, toml: str = "", golden: Any = None, name: str = "line.tflite") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(model)
    (folder / "edgepack.toml").write_text(f'[pipeline]\nname = "line"\n[[steps]]\nmodel = "{name}"\n{toml}\n')
    if golden is not None:
        (folder / "golden.json").write_text(json.dumps(golden))
    return folder


def packaged(source: Path) -> Packaged:
    return package(Project.open(source), X86)


def fields(found: Packaged) -> tuple[dict[str, str], dict[str, str]]:
    return found.spec.steps[0].input, found.spec.steps[0].output


def test_a_float_model_is_packaged_proven_and_runs(tmp_path: Path) -> None:
    found = packaged(project(tmp_path / "p", models.dense(WEIGHTS)))
    step = found.spec.steps[0]
    assert (step.framework, step.runtime) == ("tflite", "tflite") and found.parity["runtime"] == "tflite"
    assert fields(found) == ({"x": "list<float32>[4]"}, {"y": "list<float32>[3]"})
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "b")).passed


def test_a_bare_file_is_a_project_whatever_its_name_ends_with(tmp_path: Path) -> None:
    (tmp_path / "line.bin").write_bytes(models.dense(WEIGHTS))
    assert detect(tmp_path / "line.bin") == "tflite"
    assert packaged(tmp_path / "line.bin").spec.name == "line"


def test_integers_stay_integers_without_a_schema(tmp_path: Path) -> None:
    assert fields(packaged(project(tmp_path / "p", INTEGERS))) == ({"x": "list<int8>[4]"}, {"y": "list<int8>[3]"})


def test_a_schema_may_ask_for_numbers_of_a_quantized_model(tmp_path: Path) -> None:
    toml = '[steps.input]\nx = "list<float32>[4]"\n[steps.output]\ny = "list<float32>[3]"'
    found = packaged(project(tmp_path / "p", INTEGERS, toml))
    assert fields(found) == ({"x": "list<float32>[4]"}, {"y": "list<float32>[3]"})
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "b")).passed


def test_golden_rows_are_held_against_the_model(tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    right = [{"in.x": a, "out.y": b} for a, b in zip(x.tolist(), (x @ WEIGHTS).tolist(), strict=True)]
    assert (
        packaged(project(tmp_path / "p", models.dense(WEIGHTS), '[golden]\nrows = "golden.json"', right)).parity["rows"]
        == 2
    )
    right[1]["out.y"][0] += 1.0
    with pytest.raises(BadInput, match="does not answer as expected: row 1, field 'y'"):
        packaged(project(tmp_path / "p", models.dense(WEIGHTS), '[golden]\nrows = "golden.json"', right))


def test_several_inputs_and_outputs_keep_the_names_of_the_signature(tmp_path: Path) -> None:
    inputs, outputs = fields(packaged(project(tmp_path / "p", models.two_ways())))
    assert (list(inputs), list(outputs)) == (["a", "b"], ["total", "product"])


@pytest.mark.parametrize("has_signature", [True, False])
def test_a_schema_in_another_order_than_the_model_s_goes_by_name(has_signature: bool, tmp_path: Path) -> None:
    toml = "[steps.input]\n" + "\n".join(f'{name} = "list<float32>[3]"' for name in ("a", "b"))
    found = packaged(project(tmp_path / "p", models.minus(has_signature=has_signature), toml))
    loaded = LoadedPipeline.open(unpack(bundles(found.index)[0], tmp_path / "b"))
    rows = {name: np.full((2, 3), value, np.float32) for name, value in (("a", 1), ("b", 5))}
    assert loaded.infer(Columns.of(loaded.input, rows)).outputs["difference"].tolist() == [[4, 4, 4]] * 2
    loaded.close()


def test_without_a_signature_tensors_have_their_plain_names(tmp_path: Path) -> None:
    inputs, outputs = fields(packaged(project(tmp_path / "p", models.dense(WEIGHTS, names=None))))
    assert (list(inputs), list(outputs)) == (["x"], ["StatefulPartitionedCall"])


@pytest.mark.parametrize(
    "model, toml, said",
    [
        (models.flex("FlexErf"), "", "needs TensorFlow's own operators .FlexErf.: convert it without SELECT_TF_OPS"),
        (models.flex("Mi\nne"), "", r"has custom operators .Mi\\nne.,"),
        (models.flex("Mine"), "", "has custom operators .Mine., which the runtime does not have"),
        (models.dense(WEIGHTS, kind="string"), "", "has elements of type string"),
        (models.dense(WEIGHTS, kind="complex64"), "", "has elements of type complex64"),
        (models.dense(WEIGHTS), '[steps.input]\nz = "list<float32>[4]"', r"\[steps.input\] names 'z', the model has x"),
        (models.dense(WEIGHTS), '[steps.input]\nx = "list<float32>[5]"', r"the model has list<float32>\[4\]"),
        (models.dense(WEIGHTS), '[steps.input]\nx = "list<int8>[4]"', r"the model has list<float32>\[4\]"),
        (models.dense(WEIGHTS), 'tensor_fields = ["a", "b"]', "tensor_fields has 2 names"),
        (
            models.dense(WEIGHTS, names=("a\nb", "y")),
            "",
            r"a field whose name no answer can carry: 'a\\nb': name it in",
        ),
        (models.dense(WEIGHTS, names=("x", "y" * 201)), "", "a field whose name no answer can carry"),
        (models.dense(WEIGHTS, names=("a\nb", "y")), 'tensor_fields = ["a", "b"]', r"has 1 inputs: a\\nb$"),
        (models.dense(WEIGHTS, names=("a" * 5000, "y")), 'tensor_fields = ["a", "b"]', r"has 1 inputs: a{200}$"),
        (models.dense(WEIGHTS, names=("a\nb", "y")), '[steps.input]\nx = "list<float32>[4]"', r"carry: 'a\\nb': name"),
        (models.dense(WEIGHTS, names=("a\nb", "y"), kind="string"), 'tensor_fields = ["a"]', r"input 'a\\nb' of model"),
        (models.alike(), "", "has inputs without a name of their own: x, x"),
        (models.dense(WEIGHTS), 'framework = "onnx"', "is a model of tflite, not of 'onnx'"),
        (models.dense(WEIGHTS)[:300], "", "is not a whole TFLite model"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, model: bytes, toml: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as raised:
        packaged(project(tmp_path / "p", model, toml))
    assert "\n" not in str(raised.value)


def test_inputs_of_one_name_are_told_apart_by_tensor_fields(tmp_path: Path) -> None:
    found = packaged(project(tmp_path / "p", models.alike(), 'tensor_fields = ["left", "right"]'))
    assert list(found.spec.steps[0].input) == ["left", "right"]


WHOLE = models.two_ways()


@given(
    st.lists(st.tuples(st.integers(8, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(WHOLE)),
)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tflite"
    for cut in (bytes(data), bytes(data[:end])):
        path.write_bytes(cut)
        try:
            assert read_tflite(path).version >= 0
        except BadInput as error:
            assert "damaged.tflite" in str(error)
