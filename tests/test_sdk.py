"""`edgepack.prepare`: from a fitted estimator in a training program to a project that packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

import edgepack
from edgepack import sdk
from edgepack._golden import MOST_ROWS
from edgepack.errors import BadInput

CHECKOUT = Path(__file__).resolve().parents[1]

TRAINING = """
import json
import sys

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import edgepack

assert not {"arch", "columns", "packager", "click"} & set(sys.modules)
kind, path = sys.argv[1:]
if kind == "matrix":
    wine = load_wine()
    x, y = wine.data, wine.target
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, y)
else:
    random = np.random.default_rng(0)
    x = pd.DataFrame({"line": random.choice(["a", "b"], 60), "speed": random.normal(size=60)})
    y = np.where(x["line"] == "a", 2.0, -1.0) * x["speed"]
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["line"]), remainder="passthrough"), LinearRegression()
    ).fit(x, y)
made = edgepack.prepare(model, x, y, path=path)
assert not {"arch", "columns", "packager", "click"} & set(sys.modules)
print(json.dumps({"input": dict(made.input), "output": dict(made.output), "rows": made.rows, "path": str(made.path)}))
"""


class Estimator:
    """Stands for a class of a library; it is not pickled in these tests."""

    def predict(self, sample: Any) -> Any:
        return np.zeros(len(sample), np.int64)


Estimator.__module__ = "sklearn.stand_in"


class Column:
    """A pandas column, as far as `prepare` looks at it."""

    def __init__(self, dtype: str, values: list[Any]) -> None:
        self.dtype, self.values = dtype, values

    def to_numpy(self) -> Any:
        return np.array(self.values)


class Frame:
    """A pandas DataFrame, as far as `prepare` looks at it: none is installed here."""

    def __init__(self, **columns: Column) -> None:
        self.columns, self.dtypes, self._held = list(columns), None, columns

    def __getitem__(self, name: str) -> Column:
        return self._held[name]

    def __len__(self) -> int:
        return max((len(each.values) for each in self._held.values()), default=0)


class Unfitted(Estimator):
    def predict(self, sample: Any) -> Any:
        raise ValueError("this estimator is not fitted yet")


Unfitted.__module__ = "xgboost.stand_in"


def left_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def test_prepare_is_part_of_the_public_face_and_loaded_when_asked_for() -> None:
    code = "import sys, edgepack; assert 'edgepack.sdk' not in sys.modules; edgepack.prepare; import edgepack.sdk"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
    assert edgepack.prepare is sdk.prepare
    with pytest.raises(AttributeError, match="no attribute 'prepared'"):
        edgepack.prepared  # noqa: B018


@pytest.mark.parametrize(
    "sample, fields",
    [
        (np.zeros((4, 3), np.float32), {"inputs": "list<float32>[3]"}),
        ([[1.0, 2.0], [3.0, 4.0]], {"inputs": "list<float64>[2]"}),
        (np.array(["good wine", "bad wine"]), {"text": "string"}),
        (np.array([["a", "b"]], dtype=object), {"inputs": "list<string>[2]"}),
        (np.array([1, 2], np.int32), {"text": "int32"}),
    ],
)
def test_fields_follow_from_the_sample(sample: Any, fields: dict[str, str]) -> None:
    found, columns = sdk._fields_of(sample)
    assert found == fields
    assert [len(values) for values in columns.values()] == [len(sample)]


@pytest.mark.parametrize(
    "estimator, sample, known, word",
    [
        (object(), np.zeros((1, 2)), None, "estimator is a builtins.object: expected one of sklearn"),
        (Estimator(), np.zeros((0, 2)), None, "x_sample has no rows"),
        (Estimator(), np.zeros((1, 2, 2)), None, "has shape"),
        (Estimator(), np.array([[1j, 2j]]), None, "type complex128"),
        (Estimator(), np.array([["a", 1]], dtype=object), None, "type object"),
        (Estimator(), np.zeros((2, 2)), [1], "y_sample has 1 values, x_sample has 2 rows"),
        (Estimator(), np.zeros((2, 2)), ["a", "b"], "is it the estimator of these rows"),
        (Estimator(), np.full((2, 2), np.nan), None, "not finite"),
        (Estimator(), np.zeros((2, 2)), None, "cannot be pickled"),
        (Estimator(), Frame(), None, "x_sample has no rows"),
        (Estimator(), Frame(a=Column("float64", [])), None, "x_sample has no rows"),
        (Unfitted(), np.zeros((2, 2)), None, "does not answer x_sample: ValueError: this estimator is not fitted yet"),
        (Unfitted(), Frame(a=Column("category", ["b"])), None, "column 'a' of x_sample is a pandas category"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_left(
    tmp_path: Path, estimator: Any, sample: Any, known: Any, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if word != "cannot be pickled":
        monkeypatch.setattr(sdk, "_pickled", lambda _: b"stands for a pickle")
    with pytest.raises(BadInput, match=word):
        sdk.prepare(estimator, sample, known, path=tmp_path / "project")
    assert left_in(tmp_path) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        sdk.prepare(Estimator(), np.zeros((1, 2)), path=tmp_path)
    assert [path.name for path in left_in(tmp_path)] == ["mine.txt"]


def test_what_the_program_refuses_is_refused_here_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "_pickled", lambda _: b"\x80\x04cos\nsystem\n.")
    with pytest.raises(BadInput, match=r"os\.system") as error:
        sdk.prepare(Estimator(), np.zeros((1, 2)), path=tmp_path / "project")
    assert len(str(error.value).splitlines()) == 1 and not str(error.value).startswith("edgepack:")
    assert left_in(tmp_path) == []


def test_golden_rows_are_bounded_and_evenly_taken() -> None:
    rows = sdk._rows_of({"x": list(range(1000))}, {"predictions": list(range(1000))})
    assert len(rows) == MOST_ROWS
    assert rows[1] == {"in.x": 5, "out.predictions": 5}


def test_answers_that_the_project_has_no_field_for_are_left_out() -> None:
    rows = [{"in.x": 1.0, "out.predictions": 1, "out.probabilities": [0.1, 0.9]}]
    assert sdk._of_fields(rows, {"predictions": "int64"}) == [{"in.x": 1.0, "out.predictions": 1}]
    assert sdk._of_fields(rows, {"transformed": "float32"}) == [{"in.x": 1.0}]


@pytest.mark.frameworks
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "kind, fields, outputs",
    [
        ("matrix", {"inputs": "list<float64>[13]"}, {"predictions", "probabilities"}),
        ("frame", {"line": "string", "speed": "float64"}, {"predictions"}),
    ],
)
def test_a_training_program_prepares_a_project_that_packages(
    tmp_path: Path, kind: str, fields: dict[str, str], outputs: set[str]
) -> None:
    from packager.environments import CLASSIC, ready

    cache = platformdirs.user_cache_path("edgepack")
    python = ready(CLASSIC, cache, os.environ).python
    program = Path(sys.executable).parent
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PATH": f"{program}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(python), "-c", TRAINING, kind, str(tmp_path / "My Model")],
        capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["input"] == fields and set(said["output"]) == outputs
    project = tmp_path / "My Model"
    assert {path.name for path in project.iterdir()} == {"edgepack.toml", "golden.json", "model.pkl"}
    checked = subprocess.run(
        [str(program / "edgepack"), "check", str(project), "--json"], capture_output=True, text=True, timeout=500
    )
    assert checked.returncode == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert found["steps"][0]["framework"] == "sklearn"
    assert found["steps"][0]["parity"]["label_flips"] == 0
    assert found["steps"][0]["parity"]["rows"] >= said["rows"]
