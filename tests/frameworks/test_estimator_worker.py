"""The worker's estimators from files that are no pickles, with real libraries: skops's, XGBoost's and LightGBM's own.

The worker runs in the environment in which they were trained, and answers as the original did there.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import RuntimeFailed
from packager.environments import Environment
from runtimes.worker import Job, Limits, Worker

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

TRAIN = """\
import json, sys, warnings
import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor
from skops.io import dump
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import DMatrix, XGBClassifier, XGBRegressor
warnings.simplefilter("ignore")
folder = sys.argv[1]
x, y = load_iris(return_X_y=True)
rows = x[::15]
plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
dump(plain, f"{folder}/plain.skops")
dump(RandomForestClassifier(5, random_state=0).fit(x, y), f"{folder}/forest.skops")
boosted = XGBClassifier(n_estimators=5).fit(x, y)
for suffix in ("json", "ubj"):
    boosted.get_booster().save_model(f"{folder}/boosted.{suffix}")
table, target = load_diabetes(return_X_y=True, as_frame=True)
columns = XGBRegressor(n_estimators=5).fit(table[["age", "bmi"]], target)
columns.get_booster().save_model(f"{folder}/columns.ubj")
light = LGBMClassifier(n_estimators=5, verbose=-1).fit(x, y)
light.booster_.save_model(f"{folder}/light.txt")
few = table[["age", "bmi"]][::60]
print(json.dumps({
    "rows": rows.tolist(),
    "few": few.to_dict("list"),
    "plain": [plain.predict(rows).tolist(), plain.predict_proba(rows).tolist()],
    "boosted": boosted.get_booster().predict(DMatrix(rows)).tolist(),
    "columns": columns.get_booster().predict(DMatrix(few)).tolist(),
    "light": light.booster_.predict(rows).tolist(),
}))
"""
MATRIX, CLASSES = {"x": "list<float64>[4]"}, "list<float64>[3]"


@pytest.fixture(scope="module")
def trained(classic: Environment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    command = [classic.python, "-c", TRAIN, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return folder, json.loads(done.stdout)


def answered(
    classic: Environment, path: Path, takes: Any, gives: Any, values: Any, scratch: Path, **options: Any
) -> Any:
    job = Job(
        "model",
        "estimator",
        path,
        Schema.parse(takes),
        Schema.parse(gives),
        (classic.site_packages,),
        options,
        Path(classic.python),
    )
    with Worker.start(job, Limits(memory_bytes=2 << 30), scratch=scratch) as worker:
        return worker.infer(Columns.of(job.input, values)).arrays


def test_a_skops_file_answers_labels_and_probabilities(classic, trained, tmp_path):
    folder, said = trained
    gives = {"predictions": "int64", "probabilities": CLASSES}
    found = answered(classic, folder / "plain.skops", MATRIX, gives, {"x": np.array(said["rows"])}, tmp_path)
    assert found["predictions"].tolist() == said["plain"][0]
    assert found["probabilities"].tolist() == said["plain"][1]


def test_a_skops_file_with_types_that_nobody_trusts_does_not_load_until_they_are_named(classic, trained, tmp_path):
    folder, said = trained
    ask = (classic, folder / "forest.skops", MATRIX, {"predictions": "int64"}, {"x": np.array(said["rows"])}, tmp_path)
    with pytest.raises(RuntimeFailed, match="UntrustedTypesFoundException"):
        answered(*ask)
    trusted = ["sklearn.tree._tree.Tree"]
    assert answered(*ask, trusted=trusted)["predictions"].tolist() == said["plain"][0]


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_a_booster_of_xgboost_answers_as_booster_predict(classic, trained, tmp_path, suffix):
    folder, said = trained
    gives, values = {"predictions": "list<float32>[3]"}, {"x": np.array(said["rows"])}
    found = answered(classic, folder / f"boosted.{suffix}", MATRIX, gives, values, tmp_path)
    assert found["predictions"].tolist() == np.array(said["boosted"], np.float32).tolist()


def test_a_booster_that_was_trained_on_named_columns_takes_them_as_fields(classic, trained, tmp_path):
    folder, said = trained
    takes, gives = {"age": "float64", "bmi": "float64"}, {"progress": "float32"}
    found = answered(classic, folder / "columns.ubj", takes, gives, said["few"], tmp_path)
    assert found["progress"].tolist() == np.array(said["columns"], np.float32).tolist()


def test_the_text_file_of_lightgbm_answers_as_booster_predict(classic, trained, tmp_path):
    folder, said = trained
    values = {"x": np.array(said["rows"])}
    found = answered(classic, folder / "light.txt", MATRIX, {"predictions": CLASSES}, values, tmp_path)
    assert found["predictions"].tolist() == said["light"]


@pytest.mark.parametrize(("name", "error"), [("boosted.json", "XGBoostError"), ("light.txt", "LightGBMError")])
def test_a_damaged_file_does_not_load_and_says_why(classic, trained, tmp_path, name, error):
    (tmp_path / name).write_bytes(b"{no model")
    with pytest.raises(RuntimeFailed, match=f"'model' does not load in its worker: .*{error}"):
        answered(classic, tmp_path / name, MATRIX, {"predictions": CLASSES}, {}, tmp_path / "scratch")
