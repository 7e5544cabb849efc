"""Steps of several models, from edgepack.toml to a pipeline that answers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from columns import Columns
from edgepack.errors import BadInput, RuntimeFailed
from packager import Project, package
from runtimes.pipeline import LoadedPipeline
from tests.make import linear, onnx_model, save

MODELS = '[models.champion]\nmodel = "a.onnx"\n[models.challenger]\nmodel = "b.onnx"\n'
SPLIT = '[pipeline]\nname = "ab"\n[[steps]]\nsplit = { champion = 3, challenger = 1 }\n'


def project(folder, toml, **models):
    for name, model in {"a": linear(seed=1), "b": linear(seed=2), **models}.items():
        save(model, folder / f"{name}.onnx")
    (folder / "edgepack.toml").write_text(toml)
    return Project.open(folder)


def opened(folder, packaged):
    return LoadedPipeline.open(unpack(bundles(packaged.index)[0], folder / "bundles"))


def test_a_split_between_two_models_is_packaged_and_answers(tmp_path):
    packaged = package(project(tmp_path, SPLIT + MODELS), [host_target()], cache=tmp_path / "cache")
    (step,) = packaged.spec.steps
    assert step.routing.split == {"champion": 3, "challenger": 1}
    assert step.model == step.routing.models["champion"].model
    assert packaged.parity["others"]["challenger"]["rows"] > 1
    pipeline = opened(tmp_path, packaged)
    rows = Columns.of(pipeline.input, {"tensor": np.ones((400, 3), np.float32)})
    outcome = pipeline.infer(rows)
    assert 40 < int(outcome.models.sum()) < 170
    assert len(np.unique(outcome.outputs["y"])) == 2
    pipeline.close()


def test_a_key_that_no_model_takes_is_a_field_of_the_step(tmp_path):
    toml = SPLIT + 'key = "in.line"\n[steps.input]\ntensor = "list<float32>[3]"\nline = "string"\n' + MODELS
    pipeline = opened(tmp_path, package(project(tmp_path, toml), [host_target()], cache=tmp_path / "cache"))
    assert pipeline.input.to_dict() == {"tensor": "list<float32>[3]", "line": "string"}
    given = {"tensor": np.ones((2, 3), np.float32), "line": ["7", "7"]}
    answers = pipeline.infer(Columns.of(pipeline.input, given)).outputs["y"]
    assert answers[0] == answers[1]
    pipeline.close()


def test_a_model_with_a_shadow_is_packaged_with_both(tmp_path):
    toml = (
        '[[steps]]\nname = "main"\nmodel = "a.onnx"\nshadow = ["challenger"]\n[models.challenger]\nmodel = "b.onnx"\n'
    )
    packaged = package(project(tmp_path, toml), [host_target()], cache=tmp_path / "cache")
    pipeline = opened(tmp_path, packaged)
    outcome = pipeline.infer(packaged_rows(pipeline))
    shadows = pipeline.shadows(outcome)
    assert list(shadows) == ["challenger"]
    assert not np.array_equal(shadows["challenger"]["y"], outcome.outputs["y"])
    pipeline.close()


def packaged_rows(pipeline):
    return pipeline.bundle.golden().inputs


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (SPLIT + 'key = "in.line"\n' + MODELS, "splits by key 'in.line': the pipeline takes 'tensor'"),
        (SPLIT + 'key = "line"\n' + MODELS, "expected 'in.<field>'"),
        (SPLIT + 'shadow = ["champion"]\n' + MODELS, "'champion', which is in the step already"),
        (SPLIT + MODELS + '[models.third]\nmodel = "b.onnx"\n', "[models.third] is in no split"),
        (SPLIT + MODELS.replace("b.onnx", "../b.onnx"), "leads out of the project"),
        (SPLIT + MODELS.replace("b.onnx", "wide.onnx"), "differ: 'champion' takes tensor: list<float32>[3]"),
    ],
)
def test_what_does_not_hold_together_is_refused(tmp_path, toml, said):
    with pytest.raises(BadInput) as refusal:
        package(project(tmp_path, toml, wide=linear(width=4)), [host_target()], cache=tmp_path / "cache")
    assert said in str(refusal.value)


def test_a_challenger_that_cannot_answer_is_found_before_it_travels(tmp_path):
    nodes = [
        helper.make_node("Cast", ["tensor"], ["i"], to=7),
        helper.make_node("Gather", ["w", "i"], ["g"]),
        helper.make_node("Slice", ["g", "zero", "one", "axis"], ["y"]),
    ]
    weights = {
        "w": np.ones(1, np.float32), "zero": np.array([0]), "one": np.array([1]), "axis": np.array([1])
    }  # fmt: skip
    broken = onnx_model(nodes, {"tensor": ("float32", ["N", 3])}, {"y": ("float32", ["N", 1])}, weights)
    with pytest.raises((BadInput, RuntimeFailed), match="indices"):
        package(
            project(tmp_path, SPLIT + MODELS.replace("b.onnx", "broken.onnx"), broken=broken),
            [host_target()],
            cache=tmp_path / "cache",
        )
