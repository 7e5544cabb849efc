"""Golden rows that `prepare()` wrote hold the estimator's answers: they count until score.py is edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from columns.columns import Columns
from columns.schema import Schema
from edgepack import _ads_metadata as metadata
from edgepack.errors import BadInput
from packager import parity
from packager.dialects.ads_answers import are_of_other_code
from packager.golden import Golden, read_golden
from packager.parity import Answers
from tests.packager.dialects.ads_artifacts import artifact

INPUT, OUTPUT = Schema.parse({"age": "int64", "income": "float64"}), Schema.parse({"prediction": "float64"})
OBJECTS = Schema.parse({"prediction": "struct<watts: float64>"})
ROWS = [{"in.age": 1, "in.income": 10.5, "out.prediction": 21.5}]


def prepared(place: Path, rows: Any = ROWS) -> Path:
    """The golden rows of an artifact as prepare() leaves it."""
    folder = artifact(place, golden_dot_json=json.dumps(rows))
    digests = metadata.digests(folder, ("score.py", "golden.json", "not there"))
    metadata.write(folder / metadata.METADATA, {"custom": {metadata.DIGESTS: digests}})
    return folder / "golden.json"


def edited(rows: Path) -> Path:
    score = rows.with_name("score.py")
    score.write_text(score.read_text() + "# mine\n")
    return rows


def read(rows: Path, outputs: Schema = OUTPUT) -> Golden:
    return read_golden(rows, INPUT, outputs, "")


def test_answers_count_as_long_as_score_py_is_the_one_that_they_were_written_with(tmp_path: Path) -> None:
    found = read(prepared(tmp_path / "churn"))
    assert found.rows.outputs is not None and found.rows.outputs["prediction"].tolist() == [21.5]
    assert not found.left_out


def test_rows_of_an_edited_score_py_are_questions_whatever_its_answers_look_like_now(tmp_path: Path) -> None:
    rows = edited(prepared(tmp_path / "churn"))
    for outputs in (OUTPUT, OBJECTS):
        found = read(rows, outputs)
        assert found.rows.inputs["age"].tolist() == [1] and found.rows.outputs is None
        assert found.left_out == "those are the estimator's, and score.py was edited since prepare()"
    assert found.made_for is None


def test_rows_that_the_user_has_written_count_beside_an_edited_score_py(tmp_path: Path) -> None:
    rows = edited(prepared(tmp_path / "churn"))
    rows.write_text(json.dumps([{**ROWS[0], "out.prediction": 22.5}]))
    found = read(rows)
    assert found.rows.outputs is not None and found.rows.outputs["prediction"].tolist() == [22.5]
    with pytest.raises(BadInput, match=r"golden rows 'golden\.json': row 0 field 'prediction'"):
        read(rows, OBJECTS)


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"custom": 3}', '{"custom": {"ArtifactDigests": [1]}}', "[" * 100_000, None]
)
def test_rows_count_where_nothing_is_known_of_their_making(tmp_path: Path, said: str | None) -> None:
    rows = edited(prepared(tmp_path / "churn"))
    kept = rows.with_name(metadata.METADATA)
    kept.unlink() if said is None else kept.write_text(said)
    assert not are_of_other_code(rows) and read(rows).rows.outputs is not None


def test_rows_that_are_none_are_named_beside_an_edited_score_py_too(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"golden rows 'golden\.json': "):
        read(edited(prepared(tmp_path / "churn", [3])))


def test_an_answer_that_differs_names_the_file_that_expects_another(tmp_path: Path) -> None:
    path = prepared(tmp_path / "churn")
    other = Columns.of(OUTPUT, {"prediction": [22.5]})
    with pytest.raises(BadInput, match=r"expected 21\.5, found 22\.5 .*; 'golden\.json' expects it: correct it"):
        parity.prove(read(path).rows, Answers(other, other), 1e-5, path=path)
