"""`edgepack.prepare` as a new user has it: train, prepare, serve, ask; the answers are the estimator's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from packager.environments import Environment
from tests.frameworks.test_python_steps import infer, served

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
TRAINING = """
import json, sys
import lightgbm, numpy as np, pandas as pd, xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import edgepack

random = np.random.default_rng(7)
table = pd.DataFrame({
    "line": random.choice(["a", "b", "c"], 200),
    "speed (m/s)": random.normal(10, 3, 200).round(2),
    "count": random.integers(0, 50, 200),
    "is_new": random.choice([True, False], 200),
})
numbers, matrix = table.drop(columns="line"), table[["speed (m/s)", "count"]].to_numpy(np.float32)
wear = table["speed (m/s)"] * 2 + table["count"] * (table["line"] == "a")
bad = np.where(wear > wear.median(), "bad", "good")
encoded = make_column_transformer((OneHotEncoder(), ["line"]), remainder="passthrough")
made = {
    "forest": (make_pipeline(encoded, RandomForestClassifier(20, random_state=0)).fit(table, bad), table, bad),
    "boosted": (xgboost.XGBClassifier(n_estimators=20).fit(numbers, bad == "bad"), numbers, None),
    "matrix": (xgboost.XGBRegressor(n_estimators=20).fit(matrix, wear), matrix, wear),
    "light": (lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(numbers, wear), numbers, wear),
}
asked = {}
for name, (model, x, y) in made.items():
    edgepack.prepare(model, x, y, path=name)
    rows = [{"inputs": row} for row in x.tolist()] if x is matrix else x.to_dict("records")
    asked[name] = [rows, model.predict(x).tolist()]
print(json.dumps(asked))
"""


@pytest.fixture(scope="module")
def prepared(classic: Environment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The projects, and by pipeline all rows with what the estimators say."""
    folder = tmp_path_factory.mktemp("prepared")
    environ = {**os.environ, "PYTHONPATH": str(BIN.parents[1]), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        [classic.python, "-c", TRAINING], capture_output=True, text=True, cwd=folder, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_what_was_prepared_is_served_and_answers_like_the_estimators(
    prepared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, asked = prepared
    with served(tmp_path / "data", *(folder / name for name in asked)) as url:
        for name, (rows, expected) in asked.items():
            found = [out["predictions"] for out in infer(url, rows, f"pipelines/{name}")]
            is_label = not isinstance(expected[0], float)
            assert found == (expected if is_label else pytest.approx(expected, rel=1e-5)), name
