"""Every family of converters, and every fault of theirs that is known to be silent: the gate must see it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import packager as packager_room
from edgepack.errors import BadInput
from packager import gate
from packager.artifact import ModelArtifact
from packager.conversion import read_result
from packager.environments import Environment
from tests.frameworks.conftest import ONE_THREAD

pytestmark = pytest.mark.frameworks

Inspect = Callable[..., ModelArtifact]

NATIVE = [
    *(
        "one_class",
        "logistic_of_words",
        "forest",
        "forest_joblib",
        "forest_packed",
        "skops_forest",
        "hist_boosting",
        "clusters",
    ),
    *("scaler", "regressor_of_columns", "text"),
    *("xgb_binary", "xgb_classes", "xgb_gaps", "xgb_columns", "xgb_regressor", "xgb_early", "xgb_forest_classes"),
    *("xgb_forest_regressor", "booster_binary", "booster_classes", "booster_class_ids", "booster_forest_classes"),
    *("booster_forest_regressor", "booster_regressor", "booster_classes.json", "booster_classes.ubj"),
    *("xgb_logistic", "xgb_targets", "xgb_poisson", "xgb_linear", "xgb_dart"),
    *("lgbm_binary", "lgbm_classes", "lgbm_regressor", "lgbm_text", "lgbm_forest", "lgbm_gaps", "lgbm_categories"),
    *("hist_classes", "hist_gaps", "piped_hist", "piped_lgbm", "piped_xgb_missing"),
]

# model → the field in which skl2onnx is silently wrong, for inputs of 64 bits that it computes with in 32
SILENT = {
    "tuned_threshold": "predictions",
    "neighbours": "predictions",
    "kernel_components": "transformed",
    "power": "transformed",
    "scaled_forest": "predictions",
    "scaled_xgboost": "predictions",
}

# models that other libraries convert without an error, and wrongly: our own converters are native and right
FAULTY = [
    *("xgb_forest_classes", "booster_forest_classes", "xgb_logistic", "xgb_targets"),
    *("lgbm_forest", "lgbm_regressor", "lgbm_binary", "hist_boosting", "hist_classes", "decision_tree_gaps"),
]

# of these, thresholds of 64 bits that were rounded to the nearest of 32: rows of 32 bits must show it too
ROUNDED = {"lgbm_regressor": 10, "lgbm_binary": 30, "hist_boosting": 10, "hist_classes": 30}


def parity(artifact: ModelArtifact) -> dict[str, Any]:
    assert artifact.parity is not None
    return artifact.parity


@pytest.mark.parametrize("name", NATIVE)
def test_a_converted_model_answers_like_the_original(name: str, inspected: Inspect) -> None:
    found = inspected(name)
    assert found.spec.runtime == "onnx", parity(found)["trail"]
    assert parity(found)["label_flips"] == 0 and parity(found)["max_rel"] <= 1e-5
    assert parity(found)["rows"] >= 20


@pytest.mark.parametrize("name", sorted(SILENT))
def test_a_converter_that_is_silently_wrong_is_seen(name: str, inspected: Inspect) -> None:
    width = {"neighbours": 3}.get(name, 30)
    found = inspected(name, f'[steps.input]\nrow = "list<float64>[{width}]"')
    narrow = parity(found)["trail"][0]
    assert not narrow["passed"] and "answers differently" in narrow["reason"], narrow
    assert SILENT[name] in narrow["reason"] and narrow["worst_row"] is not None and narrow["worst_input"]
    assert found.spec.runtime == ("onnx" if parity(found)["trail"][-1]["passed"] else "python")


@pytest.mark.parametrize("name", FAULTY)
def test_the_gate_sees_what_another_converter_gets_wrong(
    name: str, models: Path, classic: Environment, tmp_path: Path
) -> None:
    """The same rows and answers, with another converter in place of ours."""
    verdict = judged_unmended(name, None, models, classic, tmp_path)
    assert verdict.attempt.strategy == "python"
    assert "answers differently" in (verdict.reason or ""), verdict.trail


@pytest.mark.parametrize("name", sorted(ROUNDED))
def test_the_gate_sees_thresholds_that_were_rounded_up(
    name: str, models: Path, classic: Environment, tmp_path: Path
) -> None:
    """An input of 32 bits between a threshold and its rounding goes the other way."""
    fields = [["row", "float32", ROUNDED[name]]]
    verdict = judged_unmended(name, fields, models, classic, tmp_path)
    assert verdict.attempt.strategy == "python" and "answers differently" in (verdict.reason or ""), verdict.trail


def judged_unmended(name: str, fields: Any, models: Path, classic: Environment, folder: Path) -> gate.Verdict:
    """The gate's verdict on what the converters of `faulty.py` make of a model."""
    attempts = [{"strategy": "float32"}, {"strategy": "python"}]
    job = {"model": str(models / name), "form": "pickle", "folder": str(folder), "input": fields, "output": None}
    script, room = Path(__file__).with_name("faulty.py"), Path(packager_room.__file__).parent
    command = [classic.python, script, room, json.dumps({**job, "attempts": attempts})]
    subprocess.run(command, check=True, capture_output=True)
    return gate.choose(read_result(folder, models / name).attempts, 1e-5, 60)


@pytest.mark.parametrize("name", ["hist_boosting", "hist_classes", "lgbm_regressor", "lgbm_binary"])
def test_thresholds_of_64_bits_are_kept_whatever_the_input(name: str, inspected: Inspect) -> None:
    """Values of the training set are thresholds: rows of 64 bits need an input of 64; those of 32 are exact in both."""
    wide = inspected(name)
    assert wide.spec.input["inputs"].startswith("list<float64>") and parity(wide)["strategy"] == "double"
    narrow = inspected(name, f'[steps.input]\nrow = "list<float32>[{ROUNDED[name]}]"')
    assert narrow.spec.runtime == "onnx" and parity(narrow)["strategy"] == "float32"


def test_random_models_answer_like_their_originals(classic: Environment) -> None:
    """Of each type that we convert ourselves; `python randomised.py packager 100` is the long form."""
    room = Path(packager_room.__file__).parent
    command = [classic.python, Path(__file__).with_name("randomised.py"), room, "3", "20"]
    env = {**os.environ, **ONE_THREAD}
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
    assert len(told) == 17
    for kind, (rel, flips, rows, failed) in told.items():
        assert rel <= 1e-6 and not flips and rows > 60 and not failed, (kind, rel, flips, failed)


@pytest.mark.parametrize("name", ["piped_xgb_forest", "piped_xgb_logistic", "piped_xgb_targets"])
def test_xgboost_behind_a_scaler_is_converted_by_our_own_converter(name: str, inspected: Inspect) -> None:
    found = inspected(name)
    assert found.spec.runtime == "onnx" and parity(found)["max_rel"] <= 1e-5


def test_trees_behind_a_scaler_get_a_wide_input(inspected: Inspect) -> None:
    """In 32 bits one row in twenty changes its answer."""
    found = inspected("scaled_xgboost")
    narrow, wide = parity(found)["trail"]
    assert (narrow["passed"], wide["passed"]) == (False, True) and "answers differently" in narrow["reason"]
    assert found.spec.runtime == "onnx" and found.spec.input == {"inputs": "list<float64>[30]"}


def test_an_original_that_answers_by_chance_is_not_comparable(inspected: Inspect) -> None:
    found = inspected("moody")
    assert found.spec.runtime == "python" and gate.NOT_COMPARABLE in (found.reason or "")
    assert parity(found)["comparable"] is False


@pytest.mark.parametrize(
    "name, given, gives",
    [
        ("isotonic", {"inputs": "list<float64>[1]"}, {"predictions": "float64"}),
        ("spline", {"inputs": "list<float64>[4]"}, {"transformed": "list<float64>[24]"}),
        ("label_encoder", {"labels": "string"}, {"transformed": "int64"}),
    ],
)
def test_what_says_little_of_its_input_is_packaged_by_what_it_takes(
    name: str, given: dict[str, str], gives: dict[str, str], inspected: Inspect
) -> None:
    found = inspected(name)
    assert (found.spec.input, found.spec.output) == (given, gives)
    assert parity(found)["label_flips"] == 0 and parity(found)["rows"] >= 6


@pytest.mark.parametrize("name", ["searched", "forest_of_words"])
def test_words_gaps_and_searches_answer_equal_in_either_runtime(name: str, inspected: Inspect) -> None:
    found = inspected(name)
    assert parity(found)["comparable"] and parity(found)["label_flips"] == 0 and parity(found)["rows"] >= 20


def test_columns_keep_their_names_and_words(inspected: Inspect) -> None:
    found = inspected("columns_of_words")
    assert found.spec.runtime == "onnx"
    assert found.spec.input == {"age": "float32", "income": "float32", "city": "string", "plan": "string"}
    assert found.spec.output == {"predictions": "int64", "probabilities": "list<float32>[2]"}


def test_declared_fields_are_kept(inspected: Inspect) -> None:
    toml = '[steps.input]\nrow = "list<float64>[4]"\n[steps.output]\nkind = "int32"'
    found = inspected("xgb_classes", toml)
    assert (found.spec.input, found.spec.output) == ({"row": "list<float64>[4]"}, {"kind": "int32"})
    assert found.spec.runtime == "onnx"


@pytest.mark.parametrize(
    "toml, said",
    [
        ('[steps.input]\nrow = "list<float32>[5]"', "fitted with 4 columns"),
        ('[steps.input]\na = "float32"\nb = "float32"', "fitted with 4 columns"),
        ('[steps.output]\nprobabilities = "list<float32>[2]"', "the model gives list"),
        ('[steps.output]\na = "int64"\nb = "int64"', "expected predictions, probabilities or one field"),
        ('[steps.input]\nrow = "list<float32?>[4]"', "without nulls"),
    ],
)
def test_fields_that_do_not_fit_are_refused(toml: str, said: str, inspected: Inspect) -> None:
    with pytest.raises(BadInput, match=said):
        inspected("xgb_classes", toml)


@pytest.mark.parametrize("name", ["xgb_ranker", "booster_ranker"])
def test_a_ranker_is_refused_with_the_way_out(name: str, inspected: Inspect) -> None:
    with pytest.raises(BadInput, match=r"rank.*framework 'custom' \(BYOP\)"):
        inspected(name)
