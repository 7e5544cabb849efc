"""Trains the models of these tests, inside an environment of the frameworks: `python training.py FOLDER NAME…`.

Each function is one model on scikit-learn's own data; its name is that of the file. This file is never imported by
the tests: their own interpreter has none of these libraries.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets

warnings.simplefilter("ignore")
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def iris(as_frame: bool = False) -> Any:
    return datasets.load_iris(return_X_y=True, as_frame=as_frame)


def cancer(as_frame: bool = False) -> Any:
    return datasets.load_breast_cancer(return_X_y=True, as_frame=as_frame)


def diabetes() -> Any:
    return datasets.load_diabetes(return_X_y=True)


def mixed() -> Any:
    """A table with numbers, gaps and words."""
    import pandas

    draw = np.random.RandomState(0)
    rows = 400
    table = pandas.DataFrame(
        {
            "age": draw.randint(18, 90, rows).astype(float),
            "income": draw.lognormal(10, 1, rows),
            "city": draw.choice(["Bern", "Basel", "Genève"], rows),
            "plan": draw.choice(["a", "b"], rows),
        }
    )
    table.loc[::17, "income"] = np.nan
    return table, ((table.age > 40) & (table.city != "Bern")).astype(int)


def with_gaps(x: Any) -> Any:
    """One number in ten is missing."""
    x = x.copy()
    x[np.random.RandomState(0).rand(*x.shape) < 0.1] = np.nan
    return x


# scikit-learn ---------------------------------------------------------------------------------------------------


def logistic_of_words() -> Any:
    from sklearn.linear_model import LogisticRegression

    x, y = iris()
    return LogisticRegression(max_iter=5000).fit(x, np.array(["setosa", "versicolor", "virginica"])[y])


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(15, random_state=0).fit(*iris())


def hist_boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(*diabetes())


def hist_classes() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(*cancer())


def hist_gaps() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = iris()
    return HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(with_gaps(x), y)


def piped_hist() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=10, random_state=0)).fit(*diabetes())


def decision_tree_gaps() -> Any:
    """skl2onnx leaves out where such a tree sends missing values."""
    from sklearn.tree import DecisionTreeClassifier

    x, y = cancer()
    return DecisionTreeClassifier(random_state=0).fit(with_gaps(x), y)


def scaled_forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(*cancer())


def scaled_xgboost() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from xgboost import XGBClassifier

    return make_pipeline(StandardScaler(), XGBClassifier(n_estimators=20)).fit(*cancer())


def clusters() -> Any:
    from sklearn.cluster import KMeans

    return KMeans(3, random_state=0, n_init=2).fit(iris()[0])


def scaler() -> Any:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(cancer()[0])


def regressor_of_columns() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(*iris(as_frame=True))


def columns_of_words() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x, y = mixed()
    parts = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
        ]
    )
    return make_pipeline(parts, LogisticRegression()).fit(x, y)


def text() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = ["good machine", "bad machine broke", "it works well", "pump broke again", "works", "bad noise"] * 5
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, [1, 0, 1, 0, 1, 0] * 5)


def tuned_threshold() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import TunedThresholdClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = cancer()
    made = make_pipeline(StandardScaler(), LogisticRegression())
    return TunedThresholdClassifierCV(made, scoring="recall_macro", random_state=0).fit(x, y)


def neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    draw = np.random.RandomState(0)
    x = np.round(draw.rand(300, 3), 1) + 1e-9 * draw.rand(300, 3)  # near ties, which 32 bits cannot tell apart
    return KNeighborsClassifier(3).fit(x, draw.randint(0, 3, 300))


def one_class() -> Any:
    from sklearn.svm import OneClassSVM

    return OneClassSVM(nu=0.1).fit(cancer()[0])


def kernel_components() -> Any:
    from sklearn.decomposition import KernelPCA

    return KernelPCA(3, kernel="poly", degree=4).fit(cancer()[0][:150])


def power() -> Any:
    from sklearn.preprocessing import PowerTransformer

    return PowerTransformer().fit(cancer()[0])


def label_spreading() -> Any:
    """One that no converter knows: each answer asks all rows that it was trained with."""
    from sklearn.semi_supervised import LabelSpreading

    x, y = iris()
    return LabelSpreading().fit(x[::5], y[::5])


def moody() -> Any:
    """It answers by chance."""
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="uniform").fit(*iris())


def isotonic() -> Any:
    """One column, and NaN for what lies outside of it."""
    from sklearn.isotonic import IsotonicRegression

    x, y = iris()
    return IsotonicRegression().fit(x[:, 0], y)


def spline() -> Any:
    from sklearn.preprocessing import SplineTransformer

    return SplineTransformer(n_knots=4).fit(iris()[0])


def label_encoder() -> Any:
    from sklearn.preprocessing import LabelEncoder

    return LabelEncoder().fit(["Bern", "Basel", "Genève"])


def searched() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    return GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}, cv=2).fit(*iris())


def forest_of_words() -> Any:
    """Strings, gaps and categories, for an estimator that takes none of them itself."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    x, y = mixed()
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    parts = ColumnTransformer([("words", words, ["city", "plan"])], remainder="passthrough")
    return make_pipeline(parts, RandomForestClassifier(5, random_state=0)).fit(x, y)


def skops_forest() -> Any:
    return forest()


# XGBoost --------------------------------------------------------------------------------------------------------


def xgb_binary() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=15).fit(*cancer())


def xgb_classes() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=10).fit(*iris())


def xgb_gaps() -> Any:
    from xgboost import XGBClassifier

    x, y = cancer()
    x = x.copy()
    x[::5, 3] = np.nan
    x[::7, 20] = -999
    return XGBClassifier(n_estimators=10, missing=-999).fit(np.where(np.isnan(x), -999, x), y)


def xgb_columns() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=10).fit(*cancer(as_frame=True))


def xgb_regressor() -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=15).fit(*diabetes())


def xgb_early() -> Any:
    from xgboost import XGBRegressor

    x, y = diabetes()
    return XGBRegressor(n_estimators=60, early_stopping_rounds=3).fit(x[100:], y[100:], eval_set=[(x[:100], y[:100])])


def xgb_forest_classes() -> Any:
    from xgboost import XGBRFClassifier

    return XGBRFClassifier(n_estimators=8, random_state=0).fit(*iris())


def xgb_forest_regressor() -> Any:
    from xgboost import XGBRFRegressor

    return XGBRFRegressor(n_estimators=8, random_state=0).fit(*diabetes())


def booster_binary() -> Any:
    return _booster(cancer(), objective="binary:logistic")


def booster_classes() -> Any:
    return _booster(iris(), objective="multi:softprob", num_class=3)


def booster_class_ids() -> Any:
    return _booster(iris(), objective="multi:softmax", num_class=3)


def booster_forest_classes() -> Any:
    return _booster(iris(), rounds=1, objective="multi:softprob", num_class=3, num_parallel_tree=6, subsample=0.7)


def booster_forest_regressor() -> Any:
    return _booster(diabetes(), rounds=1, objective="reg:squarederror", num_parallel_tree=6, subsample=0.7)


def booster_regressor() -> Any:
    return _booster(diabetes(), objective="reg:squarederror")


def xgb_logistic() -> Any:
    from xgboost import XGBRegressor

    x, y = cancer()
    return XGBRegressor(n_estimators=10, objective="reg:logistic").fit(x, y)


def xgb_targets() -> Any:
    from xgboost import XGBRegressor

    x, y = diabetes()
    return XGBRegressor(n_estimators=10).fit(x, np.column_stack([y, -2 * y]))


def xgb_poisson() -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=10, objective="count:poisson").fit(*diabetes())


def xgb_linear() -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(booster="gblinear", n_estimators=10).fit(*diabetes())


def xgb_dart() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(booster="dart", rate_drop=0.4, n_estimators=10, random_state=0).fit(*cancer())


def xgb_ranker() -> Any:
    from xgboost import XGBRanker

    x, y = iris()
    return XGBRanker(n_estimators=4).fit(x, y, group=[50, 50, 50])


def booster_ranker() -> Any:
    return xgb_ranker().get_booster()


def piped_xgb_forest() -> Any:
    """onnxmltools' converter, as it stands in a pipeline, mixes up trees and classes of this one."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler
    from xgboost import XGBRFClassifier

    return make_pipeline(MaxAbsScaler(), XGBRFClassifier(n_estimators=8, random_state=0)).fit(*iris())


def piped_xgb_logistic() -> Any:
    """… and forgets the link of this one."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler
    from xgboost import XGBRegressor

    return make_pipeline(MaxAbsScaler(), XGBRegressor(n_estimators=8, objective="reg:logistic")).fit(*cancer())


def piped_xgb_targets() -> Any:
    """… and the second target of this one."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler
    from xgboost import XGBRegressor

    x, y = diabetes()
    return make_pipeline(MaxAbsScaler(), XGBRegressor(n_estimators=8)).fit(x, np.column_stack([y, -2 * y]))


def piped_xgb_missing() -> Any:
    """A number that stands for a missing value, behind a step that leaves numbers as they are."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler
    from xgboost import XGBClassifier

    x, y = cancer()
    x = x / np.abs(x).max(axis=0)  # scaled by one from now on
    x[::5, 3], x[1::9, 20] = -1.0, 1.0
    return make_pipeline(MaxAbsScaler(), XGBClassifier(n_estimators=10, missing=-1.0)).fit(x, y)


def _booster(rows: Any, rounds: int = 10, **settings: Any) -> Any:
    import xgboost

    return xgboost.train(settings, xgboost.DMatrix(*rows[:1], label=rows[1]), rounds)


# LightGBM -------------------------------------------------------------------------------------------------------


def lgbm_binary() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=15, verbose=-1).fit(*cancer())


def lgbm_classes() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, verbose=-1).fit(*iris())


def lgbm_regressor() -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=15, verbose=-1).fit(*diabetes())


def lgbm_forest() -> Any:
    from lightgbm import LGBMRegressor

    made = LGBMRegressor(
        boosting_type="rf", n_estimators=8, verbose=-1, bagging_freq=1, bagging_fraction=0.6, feature_fraction=0.6
    )
    return made.fit(*diabetes())


def lgbm_gaps() -> Any:
    from lightgbm import LGBMClassifier

    x, y = cancer()
    return LGBMClassifier(n_estimators=8, verbose=-1).fit(with_gaps(x), y)


def lgbm_categories() -> Any:
    from lightgbm import LGBMRegressor

    draw = np.random.RandomState(0)
    x = np.column_stack([draw.randint(0, 30, 400), draw.rand(400)])
    made = LGBMRegressor(n_estimators=8, verbose=-1, min_data_per_group=5)
    return made.fit(x, np.sin(x[:, 0]) + x[:, 1], categorical_feature=[0])


def piped_lgbm() -> Any:
    from lightgbm import LGBMClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LGBMClassifier(n_estimators=8, verbose=-1)).fit(*cancer())


def lgbm_text() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, verbose=-1).fit(*iris()).booster_


def save(name: str) -> None:
    """Train one and save it, in the form that its name says, else as a pickle."""
    model = globals()[name]()
    if name.startswith("skops_"):
        import skops.io

        skops.io.dump(model, FOLDER / name)
    elif name == "lgbm_text":
        model.save_model(FOLDER / name)
    else:
        (FOLDER / name).write_bytes(pickle.dumps(model))
    if name == "forest":
        import joblib

        joblib.dump(model, FOLDER / "forest_joblib")
        joblib.dump(model, FOLDER / "forest_packed", compress=3)
    if name == "booster_classes":
        for form in ("json", "ubj"):
            model.save_model(FOLDER / f"{name}.{form}")


if __name__ == "__main__":
    for asked in sys.argv[2:]:
        save(asked)
