"""Trains every estimator that scikit-learn lists, and XGBoost's types, in their environment:
`python frameworks_sweep.py FOLDER NAME…`.

Estimators are constructed as scikit-learn's own checks construct them (`_construct_instances`: one or several sets of
parameters each) and fitted on the first of its data sets that they take. `<name>` is the pickle, `<name>.npz` rows of
that set with the answers; `trained.json` lists them.
"""

from __future__ import annotations

import json
import pickle
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn import base, datasets, linear_model
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances

warnings.simplefilter("ignore")
FOLDER, ONLY = Path(sys.argv[1]), set(sys.argv[2:])
SECONDS = 20
ROWS = 200
ROWS_SAVED = ("matrix", "column", "text", "square")
WORDS = ["good machine", "bad machine broke", "it works well", "pump broke again", "works", "bad noise"]


def sets(name: str, model: Any) -> Iterator[tuple[str, Any, Any]]:
    """`(what it is, rows, targets)`: those first that suit the kind of estimator."""
    iris, cancer = datasets.load_iris(return_X_y=True), datasets.load_breast_cancer(return_X_y=True)
    x, y = datasets.load_diabetes(return_X_y=True)
    if base.is_regressor(model):
        yield "matrix", x, y
        yield "column", x[:, :1], y
        yield "matrix", np.abs(x), y
        yield "matrix", x, np.column_stack([y, -2 * y])
    if base.is_classifier(model):
        yield ("matrix", *cancer)
        yield "matrix", cancer[0], np.column_stack([cancer[1], cancer[0][:, 0] > 14]).astype(int)
    if "Vectorizer" in name:
        yield "text", WORDS * 5, None
    if "Label" in name:
        yield "column", iris[1], None
        yield "sets", [("a", "b"), ("b",)] * 5, None
    yield ("matrix", *iris)
    yield "matrix", np.abs(iris[0]), iris[1]
    yield "matrix", np.round(iris[0]), iris[1]
    yield "matrix", x, np.column_stack([y, -2 * y])
    yield "matrix", iris[0], np.column_stack([iris[1], iris[1] > 0]).astype(int)
    yield "column", iris[0][:, :1], iris[1]
    yield "matrix", iris[0][:, :3], iris[1]
    yield "square", iris[0] @ iris[0].T, iris[1]
    yield "dicts", [{"a": 1.0, "b": 2.0}, {"b": 3.0}] * 5, None
    yield "images", np.kron(datasets.load_digits().images, np.ones((4, 4))), None


def train(name: str, kind: str, made: Any) -> dict[str, str]:
    """Fit on the first set that it takes and save it; says why not where none fits."""
    told = "no predict and no transform"
    for shape, x, y in sets(name, made):
        try:
            model = base.clone(made).fit(x) if y is None else base.clone(made).fit(x, y)
            if not (hasattr(model, "predict") or hasattr(model, "transform")):
                break
            answers = answers_of(model, x)
            (FOLDER / name).write_bytes(pickle.dumps(model))
        except Exception as error:  # noqa: BLE001 - not fittable on these rows: tried on the next
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            continue
        if shape in ROWS_SAVED:
            save_rows(name, x, answers)
        return {"name": name, "kind": kind, "rows": shape}
    return {"name": name, "kind": kind, "left_out": told}


def answers_of(model: Any, x: Any) -> dict[str, Any]:
    """What it says to rows, by the field's name."""
    if not hasattr(model, "predict"):
        return {"transformed": model.transform(x)}
    found = {"predictions": model.predict(x)}
    if hasattr(model, "predict_proba"):
        found["probabilities"] = model.predict_proba(x)
    return found


def save_rows(name: str, x: Any, answers: dict[str, Any]) -> None:
    """Rows and answers, spread over the set; a list of arrays, one a label, is no answer that a step gives."""
    count = len(x) if isinstance(x, list) else x.shape[0]
    chosen = np.unique(np.linspace(0, count - 1, ROWS).astype(int))
    dense = {key: each.toarray() if hasattr(each, "toarray") else each for key, each in answers.items()}
    plain = {key: np.asarray(each) for key, each in dense.items() if not isinstance(each, list)}
    arrays = {key: (each.astype(str) if each.dtype == object else each)[chosen] for key, each in plain.items()}
    np.savez(FOLDER / f"{name}.npz", x=np.asarray(x)[chosen], **arrays)


def kind_of(model: Any) -> str:
    """What the table counts it under."""
    for kind, asks in (
        ("classifier", base.is_classifier),
        ("regressor", base.is_regressor),
        ("cluster", base.is_clusterer),
        ("outlier", base.is_outlier_detector),
    ):
        if asks(model):
            return kind
    return "transformer" if hasattr(model, "transform") else "other"


def instances() -> Iterator[tuple[str, Any]]:
    """Every estimator of the list, constructed; the second set of parameters of one is `<name>-2`."""
    for name, found in all_estimators():
        if ONLY and name not in ONLY:
            continue
        for number, made in enumerate(_constructed(found), 1):
            yield name if number == 1 else f"{name}-{number}", made


def _constructed(found: Any) -> Iterator[Any]:
    try:
        yield from _construct_instances(found)
    except SkipTest:  # FrozenEstimator wraps a fitted one
        yield found(linear_model.Ridge().fit(*datasets.load_iris(return_X_y=True)))


def xgboost_types() -> Iterator[tuple[str, Any, Any, Any]]:
    """`(name, model, rows, answers)` of each type that is packaged natively."""
    import xgboost as xgb

    iris, cancer = datasets.load_iris(return_X_y=True), datasets.load_breast_cancer(return_X_y=True)
    diabetes = datasets.load_diabetes(return_X_y=True)
    forest = {"num_parallel_tree": 8, "subsample": 0.7, "colsample_bynode": 0.7, "learning_rate": 1.0, "seed": 0}
    for name, (x, y) in (
        ("XGBClassifier", iris),
        ("XGBRegressor", diabetes),
        ("XGBRFClassifier", iris),
        ("XGBRFRegressor", diabetes),
    ):
        model = getattr(xgb, name)(n_estimators=10, random_state=0).fit(x, y)
        yield name, model, x, answers_of(model, x)
    for name, (x, y), rounds, settings in (
        ("Booster classifier, 2 classes", cancer, 10, {"objective": "binary:logistic"}),
        ("Booster classifier, 3 classes", iris, 10, {"objective": "multi:softprob", "num_class": 3}),
        ("Booster regressor", diabetes, 10, {"objective": "reg:squarederror"}),
        ("Booster forest, regressor", diabetes, 1, {"objective": "reg:squarederror", **forest}),
        ("Booster forest, classifier", iris, 1, {"objective": "multi:softprob", "num_class": 3, **forest}),
    ):
        booster = xgb.train(settings, xgb.DMatrix(x, label=y), rounds)
        yield name, booster, x, {"predictions": booster.predict(xgb.DMatrix(x))}


def _stop(*_: Any) -> None:
    raise TimeoutError(f"fitting took more than {SECONDS} s")


def main() -> None:
    """Train and list."""
    signal.signal(signal.SIGALRM, _stop)
    trained = []
    for name, made in instances():
        signal.alarm(SECONDS)
        try:
            trained.append(train(name, kind_of(made), made))
        except TimeoutError as error:
            trained.append({"name": name, "kind": kind_of(made), "left_out": str(error)})
        finally:
            signal.alarm(0)
    for name, model, x, answers in () if ONLY else xgboost_types():
        (FOLDER / name).write_bytes(pickle.dumps(model))
        save_rows(name, x, answers)
        trained.append({"name": name, "kind": "xgboost", "rows": "matrix"})
    (FOLDER / "trained.json").write_text(json.dumps(trained))


if __name__ == "__main__":
    main()
