"""Oracle ADS: the example and what `edgepack.ads` writes, served as they are, answer as score.py does by itself."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from buildx.mirror import APT, find_mirror
from edgepack.errors import BadInput
from oci.tar import read_tar
from packager.environments import TENSORFLOW, TORCH, Environment, ready
from tests.buildx.rootfs import serving as serving_image
from tests.buildx.rootfs import unpack, why_not_chroot
from tests.frameworks.test_python_steps import EXAMPLES, edgepack, golden, infer, same
from tests.guides import ROOT, Reader
from tests.hub.running import Clock, RunningHub

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
ROWS = [
    {"plan": "gold", "months": 5, "visits": 2, "monthly_fee": 40.5},
    {"plan": "basic", "months": 31, "visits": 200, "monthly_fee": 29.99},
    {"plan": "of a sort never seen", "months": 1, "visits": 0, "monthly_fee": 55.0},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FRAME = json.dumps({name: dict(enumerate(values)) for name, values in COLUMNS.items()})
PAYLOADS: list[Any] = [COLUMNS, ROWS, {"data": FRAME, "data_type": "<class 'pandas.core.frame.DataFrame'>"}]
CSV = ",".join(COLUMNS) + "\n" + "\n".join(",".join(map(str, row.values())) for row in ROWS) + "\n"
BY_ITSELF = """
import base64, json, sys
import score
asked = json.load(sys.stdin)
payloads = [base64.b64decode(each["bytes"]) if "bytes" in each else each["json"] for each in asked]
print(json.dumps([score.predict(each) for each in payloads]))
"""


def by_itself(environment: Environment, folder: Path, payloads: list[Any]) -> list[Any]:
    """What score.py gives as a program of its own, in a copy of its folder."""
    asked = [
        {"bytes": base64.b64encode(each).decode()} if isinstance(each, bytes) else {"json": each} for each in payloads
    ]
    done = subprocess.run(
        [environment.python, "-c", BY_ITSELF], input=json.dumps(asked), cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def serving(*arguments: object) -> Iterator[str]:
    """`edgepack serve`, and its address."""
    command = [str(BIN / "edgepack"), "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None and child.stderr is not None
            said = child.stdout.readline()
            assert " on http" in said, said + child.stderr.read()
            yield said.partition(" on ")[2].split()[0]
        finally:
            child.terminate()
            child.communicate(timeout=60)


def post(url: str, body: Any, kind: str = "application/json", **headers: str) -> tuple[int, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind, **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(EXAMPLES / "ads-churn", tmp_path_factory.mktemp("example") / "ads-churn"))


def test_check_says_that_the_example_answers_as_its_author_had_it_answer(example: Path) -> None:
    done = edgepack("check", example, "--json", folder=example.parent)
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["framework"], step["runtime"], step["parity"]["rows"]) == ("ads", "python", 40)
    assert step["parity"]["max_rel"] < 1e-6


def test_the_example_served_answers_as_its_score_py_by_itself(example: Path, classic: Environment) -> None:
    expected = by_itself(classic, example / "churn", [*PAYLOADS, CSV.encode()])
    with serving(example / "churn", "--data", example.parent / "data") as url:
        for payload, answer in zip(PAYLOADS, expected, strict=False):
            status, said = post(f"{url}/predict", payload)
            assert (status, json.loads(said)) == (200, answer)
        status, said = post(f"{url}/predict", CSV.encode(), "application/octet-stream")
        assert (status, json.loads(said)) == (200, expected[-1])
        predictions = expected[0]["prediction"]
        assert [row["prediction"] for row in infer(url, ROWS)] == predictions
        assert arrow_predictions(url) == predictions
        assert oip_predictions(url, "churn") == predictions
        asked, answers = golden(example)
        assert same(infer(url, asked), answers)
        records = "application/json; format=pandas-records"
        for body, words in (
            ([{**ROWS[0], "months": "five"}], b"months"), ([{"plan": "gold"}], b"months"),
            ([{**ROWS[0], "x": 1}], b"'x'"),
        ):  # fmt: skip
            status, said = post(f"{url}/infer", body, records)
            assert status == 400 and words in said
        for payload, words in (({"plan": ["gold"]}, b"KeyError"), (3, b"422")):
            status, said = post(f"{url}/predict", payload)
            assert status == 422 and words in said
        status, said = post(f"{url}/predict", b'{"plan": [NaN]}')
        assert status == 400 and b"no NaN" in said
        assert post(f"{url}/predict", PAYLOADS[0])[0] == 200


def arrow_predictions(url: str) -> list[float]:
    table, sink = pa.Table.from_pylist(ROWS), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    kind = "application/vnd.apache.arrow.file"
    _, said = post(f"{url}/infer", sink.getvalue(), kind, Accept=kind)
    found = pa.ipc.open_file(pa.BufferReader(said)).read_all()
    return list(found.column("out.prediction").to_pylist())


def oip_predictions(url: str, model: str) -> list[float]:
    kinds = {"plan": "BYTES", "months": "INT64", "visits": "INT64", "monthly_fee": "FP64"}
    inputs = [
        {"name": name, "shape": [len(ROWS)], "datatype": kinds[name], "data": values}
        for name, values in COLUMNS.items()
    ]
    status, said = post(f"{url}/v2/models/{model}/infer", {"inputs": inputs})
    assert status == 200, said
    return list(json.loads(said)["outputs"][0]["data"])


def test_a_reader_of_the_guide_comes_from_ads_in_under_ten_commands(tmp_path: Path) -> None:
    with Reader(tmp_path, ("ads-churn",)) as reader:
        said = reader.follow(ROOT / "docs/guides/from-ads.md")
    assert len(said) < 10
    *_, whole, rows = said
    (row,) = json.loads(rows)
    assert json.loads(whole)["prediction"] == [row["out"]["prediction"]]


TRAIN = {
    "classic": """
import lightgbm, numpy as np, pandas as pd, xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

random = np.random.default_rng(7)
table = pd.DataFrame({
    "line": random.choice(["a", "b", "c"], 200), "speed": random.normal(10, 3, 200).round(2),
    "count": random.integers(0, 50, 200), "is_new": random.choice([True, False], 200),
})
numbers, array = table[["speed", "count", "is_new"]], table[["speed", "count"]].to_numpy()
wear = table["speed"] * 2 + table["count"] * (table["line"] == "a")
words = np.where(wear > wear.median(), "bad", "good")
bad = (words == "bad").astype(int)
encoded = make_column_transformer((OneHotEncoder(), ["line"]), remainder="passthrough")
forest = make_pipeline(encoded, RandomForestClassifier(20, random_state=0)).fit(table, words)
boosted = xgboost.XGBClassifier(n_estimators=10).fit(numbers, bad)
booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(numbers, bad), 10)
light = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(numbers, bad)
lighter = lightgbm.train({"verbose": -1}, lightgbm.Dataset(numbers, wear), 10)
made = {
    "forest": (SklearnModel(forest, "forest"), table, words),
    "line": (SklearnModel(LinearRegression().fit(array, wear), "line"), array, wear),
    "boosted": (XGBoostModel(boosted, "boosted"), numbers, bad),
    "booster": (XGBoostModel(booster, "booster"), numbers, bad),
    "light": (LightGBMModel(light, "light"), numbers, bad),
    "lighter": (LightGBMModel(lighter, "lighter"), numbers, wear),
}
""",
    "torch": """
import numpy as np, torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
made = {"net": (PyTorchModel(net, "net"), rows, None)}
""",
    "tensorflow": """
import numpy as np, tensorflow as tf
tf.random.set_seed(0)
layers = tf.keras.layers
hidden = [layers.Flatten(), layers.Dense(8, activation="relu"), layers.Dense(3)]
rows = np.random.default_rng(0).normal(size=(50, 6, 6)).astype(np.float32)
made = {"keras": (TensorFlowModel(tf.keras.Sequential([tf.keras.Input((6, 6)), *hidden]), "keras"), rows, None)}
""",
}  # fmt: skip
PREPARE = """
import json, sys
from edgepack._ads_verify import payload_of
from edgepack.ads import *
{train}
said = {{}}
for name, (model, x, y) in made.items():
    model.prepare("generalml_p311_cpu_v1", use_case_type=UseCaseType.OTHER, X_sample=x, y_sample=y)
    failed = [test for test, each in model.introspect().items() if not each["success"]]
    sent = x[:6].astype("float64") if model._takes_tensors else x[:6]
    payload = json.loads(payload_of(sent, tensors=model._takes_tensors)[0])
    asked = x[:6].tolist() if name == "net" else x[:6]  # whose numbers are of another dtype than the net's
    verified = model.verify(asked) if name in ("forest", "booster", "net", "keras") else None
    said[name] = [verified, failed, model.metadata["taxonomy"], payload, model._answers(x[:6])]
    assert not {{"arch", "columns", "packager", "click"}} & set(sys.modules)
print(json.dumps(said, default=str))
"""


@pytest.mark.parametrize("library", TRAIN)
def test_what_prepare_writes_is_served_natively_and_answers_as_score_py_and_as_the_estimator(
    library: str, request: pytest.FixtureRequest, cache: Path, tmp_path: Path
) -> None:
    recipes = {"torch": TORCH, "tensorflow": TENSORFLOW}
    environment = (
        request.getfixturevalue("classic") if library == "classic" else ready(recipes[library], cache, os.environ)
    )
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    program = PREPARE.format(train=TRAIN[library])
    done = subprocess.run(
        [environment.python, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (verified, failed, taxonomy, payload, expected) in json.loads(done.stdout.splitlines()[-1]).items():
        assert verified is None or (verified["is_same"] and verified["largest_difference"] < 1e-5), name
        assert not failed and all(each["success"] for each in taxonomy["ArtifactTestResults"].values())
        assert taxonomy["Framework"] and taxonomy["UseCaseType"] == "other"
        (answer,) = by_itself(environment, tmp_path / name, [payload])
        assert close(expected, answer["prediction"]), name
        checked = edgepack("check", tmp_path / name, "--json", folder=tmp_path)
        assert checked.returncode == 0, checked.stderr
        (step,) = json.loads(checked.stdout)["steps"]
        assert (step["framework"], step["runtime"], step["reason"]) == ("ads", "onnx", None), name


EDITED = """
import json
import lightgbm, numpy as np
from edgepack.ads import LightGBMModel

rows = np.arange(40.0).reshape(20, 2)
fitted = lightgbm.LGBMRegressor(n_estimators=3, min_child_samples=1, verbose=-1).fit(rows, rows[:, 0] ** 3)
model = LightGBMModel(fitted, "capped")
model.prepare(X_sample=rows)
score = model.artifact_dir / "score.py"
plain = "return yhat.tolist()"
assert plain in score.read_text()
score.write_text(score.read_text().replace(plain, "yhat[yhat > 9000] = 9000\\n    return yhat.tolist()"))
print(json.dumps(model._answers(rows)))
"""


def test_a_score_py_that_was_edited_to_decide_by_its_answers_runs_itself_with_all_that_it_needs(
    classic: Environment, tmp_path: Path
) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        [classic.python, "-c", EDITED], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plain = json.loads(done.stdout.splitlines()[-1])
    assert max(plain) > 9000
    with serving(tmp_path / "capped", "--data", tmp_path / "data") as url:
        rows = np.arange(40.0).reshape(20, 2)
        status, said = post(f"{url}/predict", rows.tolist())
        assert status == 200 and close(json.loads(said)["prediction"], [min(each, 9000) for each in plain])
        assert close(
            [row["prediction"] for row in infer(url, [{"0": a, "1": b} for a, b in rows])],
            json.loads(said)["prediction"],
        )


def close(found: list[Any], expected: list[Any]) -> bool:
    if isinstance(expected[0], str):
        return found == expected
    return np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_examples_image_answers_as_its_score_py_by_itself(
    example: Path, classic: Environment, tmp_path: Path
) -> None:
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    if reason := why_not_chroot():
        pytest.skip(reason)
    done = edgepack("build", example / "churn", "--arch", "x86", "-o", tmp_path / "churn.tar", folder=example)
    assert done.returncode == 0, done.stderr
    (image,) = read_tar(tmp_path / "churn.tar").images
    (expected,) = by_itself(classic, example / "churn", PAYLOADS[:1])
    with serving_image(image, unpack(image, tmp_path / "root")) as url:
        status, said = post(f"{url}/predict", PAYLOADS[0])
        assert (status, json.loads(said)) == (200, expected)
        assert [row["prediction"] for row in infer(url, ROWS)] == expected["prediction"]


def test_save_publishes_to_a_hub_and_gives_the_versions_id(example: Path, tmp_path: Path) -> None:
    from edgepack.ads import GenericModel

    folder = Path(shutil.copytree(example / "churn", tmp_path / "churn"))
    model = GenericModel.from_model_artifact(folder)
    assert json.loads((folder / "model_metadata.json").read_text())["taxonomy"]["ArtifactTestResults"]
    hub = RunningHub(tmp_path / "hub", Clock())
    try:
        found = model.save(hub=hub.url, token=hub.hub.admin_token, targets=("x86",))
        listed = hub.http.get("/api/v1/pipelines", headers=hub.admin).text
    finally:
        hub.close()
    assert len(found) == 36 and found in listed
