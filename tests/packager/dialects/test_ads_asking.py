"""Asking a score.py: the form in which it reads rows, the type of what it gives, and its faults in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns.columns import Columns
from columns.json_value import one_value
from columns.schema import Field, Schema
from columns.types import parse_type
from columns.values import column_from_values
from edgepack.errors import BadInput, RuntimeFailed
from packager.archives import open_tree
from packager.dialects.ads_asking import Answered, Asking, type_of
from packager.dialects.ads_rows import likely_rows
from packager.dialects.ads_schema import INPUT, OUTPUT, fields_of, prediction_of
from packager.dialects.ads_score import read_score
from runtimes.worker import Job, Worker
from tests.packager.dialects.ads_artifacts import SCORE, artifact, attribute, schema, tree_of
from tests.runtimes.environments import numpy_environment

NUMBERS = Schema.parse({"age": "int64", "income": "float64"})
ROWS, KINDS = (
    'np.column_stack([data["age"], data["income"]])',
    {"array": "numpy.ndarray", "frame": "DataFrame", "tensor": "torch.Tensor __ads_torch_tensor__"},
)
NPY = 'np.load(__import__("io").BytesIO(__import__("base64").b64decode(data["data"])))'
PAYLOADS = {
    "columns": ROWS,
    "records": 'np.array([(row["age"], row["income"]) for row in data])',
    "rows": "np.array([row + [] for row in data])",
    "data": 'np.array(data["data"])',
    "record": 'np.array([data["age"] + 0, data["income"] + 0])',
    "array": NPY,
    "tensor": 'np.array(data["data"]["data"]).reshape(data["data"]["shape"])',
    "frame": 'np.array([list(each.values()) for each in json.loads(data["data"]).values()]).T',
}


def answered(source: Path, given: Schema | None = None) -> Answered:
    """What score.py answers in a worker, to rows made for its fields."""
    tree = open_tree(source, source)
    score, inputs = read_score(tree), Schema.parse(fields_of(tree, INPUT))
    with Asking.start(score, inputs, "churn", source, Path(sys.executable), (numpy_environment(),)) as asking:
        return asking.first_answered(None, tree, given)


@pytest.mark.parametrize("form", PAYLOADS)
def test_the_form_in_which_the_code_reads_rows_is_found_by_asking_it(tmp_path: Path, form: str) -> None:
    changes = {"input_schema_dot_json": schema(attribute(0), attribute(1))} if form == "array" else {}
    reads = f"numpy.ndarray pandas.core.frame.{KINDS.get(form)}"
    code = SCORE.replace(ROWS, PAYLOADS[form]) + f"READS = {reads!r}\n"
    found = answered(artifact(tmp_path / "churn", score_dot_py=code, **changes))
    first, second = ("0", "1") if form == "array" else ("age", "income")
    assert found.payload == form
    assert found.predictions == pytest.approx(0.5 * found.rows[first] + 2 * found.rows[second])


@pytest.mark.parametrize(
    "answer, type_",
    [
        ("['a' if x > 0 else 'b' for x in data['income']]", "string"),
        ("[{'score': x, 'is_high': x > 1} for x in data['income']]", "struct<score: float64, is_high: bool>"),
        ("[[x, 1.5] for x in data['income']]", "list<float64>[2]"),
        ("np.array(data['age'])", "int64"),
        ("[None if x < 0 else x for x in data['income']]", "float64?"),
    ],
)
def test_the_type_of_a_prediction_is_that_of_what_predict_gives(tmp_path: Path, answer: str, type_: str) -> None:
    """output_schema.json has the type of the known answers, which scores need not have."""
    code = SCORE.replace('(np.column_stack([data["age"], data["income"]]) @ model).tolist()', answer)
    assert answered(artifact(tmp_path / "churn", score_dot_py=code)).output.to_dict() == {"prediction": type_}


@pytest.mark.parametrize(
    "change, said",
    [
        (("return np.array(json.load(file))", "return json.loads('null')"), "load_model.. in score.py returned None"),
        (("model_name =", "raise ValueError('no luck')\nmodel_name ="), "ValueError: no luck"),
        (("model_name =", "raise SystemExit(3)\nmodel_name ="), "SystemExit: 3"),
        (("def predict(data, model=load_model())", "def predict(data, model=None)"), None),
        (("@ model).tolist()", "@ model + 1j).tolist()"), "complex is no JSON value"),
        (('return {"prediction": (', "raise KeyError('spelt')\n    return {'a': ("), "KeyError: 'spelt'"),
        (("@ model).tolist()", "@ model).tolist()[1:]"), "7 elements for 8 rows"),
        (("@ model).tolist()", "@ model * np.nan).tolist()"), "not JSON compliant"),
        (('return {"prediction": (', "json.dumps = lambda *_, **__: '{'\n    return {'a': ("), "does not answer"),
        (('return {"prediction": (', "os._exit(3)\n    return {'a': ("), "score.py does not answer: step 'churn'"),
    ],
    ids=["None", "raises", "exits", "no default", "no JSON", "predict raises", "too few", "NaN", "garbage", "ends"],
)
def test_a_fault_that_shows_when_the_code_runs_is_one_line_too(
    tmp_path: Path, change: tuple[str, str], said: str | None
) -> None:
    source = artifact(tmp_path / "churn", score_dot_py=SCORE.replace(*change))
    if said is None:
        assert answered(source).output.to_dict() == {"prediction": "float64"}
        return
    with pytest.raises((BadInput, RuntimeFailed), match=said) as error:
        answered(source)
    assert len(str(error.value).splitlines()) == 1


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_the_type_of_predictions_holds_them_all(values: list[Any]) -> None:
    text = type_of(values)
    if text is not None:
        field = Field("prediction", parse_type(text))
        assert len(column_from_values(field, values, json=True)) == len(values)


def test_no_form_is_asked_once_another_was_answered(tmp_path: Path) -> None:
    """What a later form would do, end the process here, does not count."""
    ends = "    if isinstance(data, list):\n        os._exit(3)\n"
    code = SCORE.replace("    if isinstance(data, bytes)", f"{ends}    if isinstance(data, bytes)")
    assert answered(artifact(tmp_path / "churn", score_dot_py=code)).payload == "columns"


def test_a_form_is_preferred_in_which_a_missing_value_is_answered_too(tmp_path: Path) -> None:
    """As pandas does it: a column of nothing but null has no type where the payload does not say it."""
    may_lack = schema(attribute("age", "int64"), attribute("income", required=False))
    code = SCORE.replace(ROWS, PAYLOADS["records"].replace('row["income"]', 'row["income"] or 0'))
    reads = (
        "    if isinstance(data, dict) and data['income'] != [None]:\n        data = [dict(zip(data, row)) for row in "
    )
    code = code.replace(
        "    if isinstance(data, bytes)", f"{reads}zip(*data.values())]\n    if isinstance(data, bytes)"
    )
    for text, form in ((code, "records"), (SCORE, "columns")):
        place = tmp_path / form
        assert answered(artifact(place, score_dot_py=text, input_schema_dot_json=may_lack)).payload == form


def test_a_name_that_no_type_can_hold_is_said(tmp_path: Path) -> None:
    gives = "[{'p>0.5': x} for x in data['income']]"
    code = SCORE.replace('(np.column_stack([data["age"], data["income"]]) @ model).tolist()', gives)
    with pytest.raises(BadInput, match=r"in its predictions the name 'p>0\.5' has a sign that types are written with"):
        answered(artifact(tmp_path / "churn", score_dot_py=code))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 10**400, -(10**400)], ids=["NaN", "inf", "huge", "low"])
def test_rows_are_made_of_the_statistics_that_are_numbers(tmp_path: Path, odd: float) -> None:
    stats = {"mean": odd, "sample maximum": 41}
    given = schema(attribute("age", "int64", domain={"stats": stats}), attribute("income", domain={"stats": stats}))
    rows = likely_rows(tree_of(tmp_path / "churn", input_schema_dot_json=given), NUMBERS)
    assert rows is not None and set(rows["age"]) == {41}


def test_all_that_predict_returns_is_answered_whatever_its_members_are_called(tmp_path: Path) -> None:
    code = SCORE.replace('"prediction": len(data)', '"json": ["a"]')
    options, value = {"entry": "score.py", "json": True}, Schema.parse({"json": "string"})
    folder = artifact(tmp_path / "churn", score_dot_py=code)
    with Worker.start(Job("churn", "ads", folder, value, value, (numpy_environment(),), options)) as worker:
        assert worker.infer(one_value(b"abc", is_json=False))["json"].tolist() == ['{"json":["a"]}']


def test_a_prediction_is_null_where_output_schema_says_so_and_else_refused_with_what_to_write(tmp_path: Path) -> None:
    code = SCORE.replace("@ model).tolist()", "@ model).tolist()[1:] + [None]")
    folder, options = artifact(tmp_path / "churn", score_dot_py=code), {"entry": "score.py", "payload": "columns"}
    asked = Columns.of(NUMBERS, {"age": [1, 2], "income": [0.5, 1.5]})

    def predictions(type_: str) -> list[Any]:
        output, sites = Schema.parse({"prediction": type_}), (numpy_environment(),)
        with Worker.start(Job("churn", "ads", folder, NUMBERS, output, sites, options)) as worker:
            return list(worker.infer(asked)["prediction"])

    said = fields_of(tree_of(tmp_path / "may", output_schema_dot_json=schema(attribute(0, required=False))), OUTPUT)
    assert predictions(prediction_of(said)) == [4.0, None]
    with pytest.raises(
        RuntimeFailed, match=r'gave null for row 1: where it may, write "required": false in output_sch'
    ):
        predictions("float64")
