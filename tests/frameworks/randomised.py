"""Random small models of our own converters, inside their environment: `python randomised.py PACKAGER COUNT [SEED]`.

Of each type so many models are trained on random data with random settings, converted, and asked the rows that the gate
asks, by onnxruntime and by the original. Prints a JSON object: type → `[largest relative difference, labels that
differ, rows, models that were not converted]`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import xgboost
from sklearn import ensemble

sys.path.append(sys.argv[1])

from convert.asking import narrowed, rows_for
from convert.converters import convert
from convert.original import Original

Draw = np.random.RandomState
_XGB_OBJECTIVES = (
    *("reg:squarederror", "reg:logistic", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror"),
    *("reg:squaredlogerror", "reg:pseudohubererror"),
)
_LGBM_OBJECTIVES = ("regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie")


def rows(draw: Draw) -> Any:
    """A matrix: fine or coarse numbers, so that thresholds fall between values or on them, with gaps or without."""
    x = draw.randn(draw.randint(40, 160), draw.randint(1, 7)) * 10.0 ** draw.randint(-2, 4)
    x = np.round(x, draw.randint(0, 3)) if draw.rand() < 0.5 else x
    if draw.rand() < 0.4:
        x[draw.rand(*x.shape) < 0.1] = np.nan
    return x


def targets(draw: Draw, x: Any, classes: int = 0) -> Any:
    """Labels, all classes among them, or numbers between 0 and 1."""
    signal = np.nan_to_num(x) @ draw.randn(x.shape[1]) + 0.3 * draw.randn(len(x))
    ranks = np.argsort(np.argsort(signal)) / len(signal)
    return np.minimum((ranks * classes).astype(int), classes - 1) if classes else ranks * 0.98 + 0.01


def shape(draw: Draw) -> dict[str, Any]:
    """Settings of any boosted trees."""
    return {"n_estimators": draw.randint(1, 12), "max_depth": draw.randint(1, 6), "learning_rate": draw.rand() + 0.05}


def _xgb(draw: Draw) -> dict[str, Any]:
    return {**shape(draw), "n_jobs": 1, "random_state": draw.randint(99), "subsample": 0.6 + 0.4 * draw.rand()}


def _lgbm(draw: Draw) -> dict[str, Any]:
    leaves = {"min_child_samples": draw.randint(1, 20), "num_leaves": draw.randint(2, 31)}
    return {**shape(draw), **leaves, "n_jobs": 1, "verbose": -1, "random_state": draw.randint(99)}


def xgb_classifier(draw: Draw) -> Any:
    x, booster = rows(draw), draw.choice(["gbtree", "dart"])
    return xgboost.XGBClassifier(booster=booster, **_xgb(draw)).fit(x, targets(draw, x, draw.randint(2, 5)))


def xgb_regressor(draw: Draw) -> Any:
    x = rows(draw)
    return xgboost.XGBRegressor(objective=draw.choice(_XGB_OBJECTIVES), **_xgb(draw)).fit(x, targets(draw, x))


def xgb_linear(draw: Draw) -> Any:
    x = rows(draw)
    return xgboost.XGBRegressor(booster="gblinear", n_estimators=draw.randint(1, 8)).fit(x, targets(draw, x))


def xgb_forest_classifier(draw: Draw) -> Any:
    x = rows(draw)
    return xgboost.XGBRFClassifier(**_xgb(draw)).fit(x, targets(draw, x, draw.randint(2, 5)))


def xgb_forest_regressor(draw: Draw) -> Any:
    x = rows(draw)
    return xgboost.XGBRFRegressor(**_xgb(draw)).fit(x, targets(draw, x))


def _booster(draw: Draw, classes: int, forest: int, **settings: Any) -> Any:
    x = rows(draw)
    settings.update(max_depth=draw.randint(1, 6), nthread=1, num_parallel_tree=forest, subsample=0.7, seed=1)
    return xgboost.train(settings, xgboost.DMatrix(x, label=targets(draw, x, classes)), draw.randint(1, 6))


def booster_classifier(draw: Draw) -> Any:
    return _booster(draw, 2, 1, objective="binary:logistic")


def booster_classes(draw: Draw) -> Any:
    return _booster(draw, 3, 1, objective=draw.choice(["multi:softprob", "multi:softmax"]), num_class=3)


def booster_regressor(draw: Draw) -> Any:
    return _booster(draw, 0, 1, objective=draw.choice(_XGB_OBJECTIVES))


def booster_forest_regressor(draw: Draw) -> Any:
    return _booster(draw, 0, 5, objective="reg:squarederror")


def booster_forest_classifier(draw: Draw) -> Any:
    return _booster(draw, 3, 5, objective="multi:softprob", num_class=3)


def lgbm_classifier(draw: Draw) -> Any:
    x, kind = rows(draw), draw.choice(["gbdt", "dart"])
    return lightgbm.LGBMClassifier(boosting_type=kind, **_lgbm(draw)).fit(x, targets(draw, x, draw.randint(2, 5)))


def lgbm_regressor(draw: Draw) -> Any:
    x = rows(draw)
    return lightgbm.LGBMRegressor(objective=draw.choice(_LGBM_OBJECTIVES), **_lgbm(draw)).fit(x, targets(draw, x))


def lgbm_forest(draw: Draw) -> Any:
    x, settings = rows(draw), {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
    return lightgbm.LGBMRegressor(**settings, **_lgbm(draw)).fit(x, targets(draw, x))


def lgbm_categories(draw: Draw) -> Any:
    x = rows(draw)
    x[:, 0] = draw.randint(0, draw.randint(2, 50), len(x))
    y = targets(draw, x) + np.sin(x[:, 0])
    return lightgbm.LGBMRegressor(min_data_per_group=2, cat_smooth=1, **_lgbm(draw)).fit(x, y, categorical_feature=[0])


def lgbm_booster(draw: Draw) -> Any:
    return lgbm_classifier(draw).booster_


def hist_classifier(draw: Draw) -> Any:
    x = rows(draw)
    made = ensemble.HistGradientBoostingClassifier(max_iter=draw.randint(1, 9), min_samples_leaf=draw.randint(1, 20))
    return made.fit(x, targets(draw, x, draw.randint(2, 4)))


def hist_regressor(draw: Draw) -> Any:
    x, loss = rows(draw), draw.choice(["squared_error", "poisson", "gamma", "absolute_error"])
    made = ensemble.HistGradientBoostingRegressor(loss=loss, max_iter=draw.randint(1, 9), min_samples_leaf=3)
    return made.fit(x, targets(draw, x))


KINDS: tuple[Callable[[Draw], Any], ...] = (
    *(xgb_classifier, xgb_regressor, xgb_linear, xgb_forest_classifier, xgb_forest_regressor, booster_classifier),
    *(booster_classes, booster_regressor, booster_forest_regressor, booster_forest_classifier),
    *(lgbm_classifier, lgbm_regressor, lgbm_forest, lgbm_categories, lgbm_booster, hist_classifier, hist_regressor),
)


def compared(model: Any, path: str) -> tuple[float, int, int]:
    """Of one model: the largest relative difference, labels that differ, rows."""
    original = Original(model, {"input": None, "output": None})
    strategy = "float32" if original.library == "xgboost" else "double"
    scalar = "float32" if strategy == "float32" else "float64"
    fields, asked = original.in_floats(scalar), original.in_floats("float64")
    given = rows_for(None, original, asked, scalar)
    answers = original.ask(asked, given)
    reason = convert(path, original, fields, original.outputs(answers, scalar), strategy)
    if reason is not None:
        raise ValueError(reason)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rel, flips = 0.0, 0
    for name, found in zip(answers, session.run(list(answers), narrowed(given, fields)), strict=True):
        expected = np.asarray(answers[name])
        if expected.dtype.kind == "f":
            apart = np.abs(found.reshape(expected.shape) - expected) / np.maximum(1, np.abs(expected))
            rel = max(rel, float(apart.max()))
        else:
            flips += int(((found.reshape(expected.shape) != expected) & ~drawn(answers, len(expected))).sum())
    return rel, flips, len(next(iter(given.values())))


def drawn(answers: dict[str, Any], count: int) -> Any:
    """Rows in which two classes have the same score but for the last bits of 64, which a graph's answers do not have.
    (The gate sends a model that has such rows to python.)
    """
    if "probabilities" not in answers:
        return np.zeros(count, dtype=bool)
    first, second = np.sort(np.asarray(answers["probabilities"]), axis=1)[:, :-3:-1].T
    return first - second < 1e-12


def main() -> None:
    """All kinds, so many of each."""
    warnings.simplefilter("ignore")
    onnxruntime.set_default_logger_severity(3)
    count, seed = int(sys.argv[2]), int((*sys.argv[3:], "0")[0])
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            rel, flips, asked, failed = 0.0, 0, 0, []
            for number in range(count):
                try:
                    one = compared(kind(Draw(seed + number)), f"{folder}/model.onnx")
                except ValueError as error:
                    failed.append(f"{number}: {error}"[:200])
                    continue
                rel, flips, asked = max(rel, one[0]), flips + one[1], asked + one[2]
            told[kind.__name__] = [rel, flips, asked, failed]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
