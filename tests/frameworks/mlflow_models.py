"""Models saved by the real mlflow, each with rows and what `mlflow.pyfunc` answers them: `mlflow_models.py FOLDER`.

Never imported by the tests: their own interpreter has none of these libraries.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_TRACKING_URI="unused")

import mlflow
import numpy as np
import pandas as pd
import xgboost
from lightgbm import LGBMClassifier, LGBMRegressor
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import DMatrix, XGBClassifier, train

COLUMNS = ["sepal length", "sepal width", "petal length", "petal width"]
X, Y = load_iris(return_X_y=True, as_frame=True)
X = X.set_axis(COLUMNS, axis=1).astype("float32").astype("float64")
NAMES = np.array(["setosa", "versicolor", "virginica"])
ASKED = X.iloc[::13]

# named, because asking each model what it imports takes mlflow seconds; one is asked
GIVEN: dict[str, Any] = {"pip_requirements": [f"mlflow=={mlflow.__version__}", "cloudpickle", "pandas", "numpy"]}
Saved = tuple[Any, dict[str, Any]]  # what predict is asked, and its parameters


def sklearn_skops(place: str) -> Saved:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(X, NAMES[Y])
    signature = infer_signature(X, model.predict(X))
    mlflow.sklearn.save_model(model, place, signature=signature, input_example=X.head(2), **GIVEN)
    return ASKED, {}


def sklearn_pickle(place: str) -> Saved:
    model = Ridge().fit(X.to_numpy(), Y)
    signature = infer_signature(X.to_numpy(), model.predict(X.to_numpy()))
    mlflow.sklearn.save_model(model, place, signature=signature, serialization_format="pickle", **GIVEN)
    return ASKED.to_numpy(), {}


def sklearn_proba(place: str) -> Saved:
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, Y)
    signature = infer_signature(X, model.predict_proba(X))
    how = {"serialization_format": "cloudpickle", "pyfunc_predict_fn": "predict_proba"}
    mlflow.sklearn.save_model(model, place, signature=signature, **how, **GIVEN)
    return ASKED, {}


def sklearn_own_code(place: str) -> Saved:
    """A function of the user's own, which no allow-list has: it stays in MLflow's hands."""
    model = make_pipeline(FunctionTransformer(lambda rows: rows * 2 + 1), Ridge()).fit(X, Y)
    signature = infer_signature(X, model.predict(X))
    mlflow.sklearn.save_model(model, place, signature=signature, serialization_format="cloudpickle")
    return ASKED, {}


def xgboost_classifier(place: str) -> Saved:
    model = XGBClassifier(n_estimators=4, max_depth=3).fit(X, Y)
    mlflow.xgboost.save_model(model, place, signature=infer_signature(X, model.predict(X)), **GIVEN)
    return ASKED, {}


def xgboost_booster(place: str) -> Saved:
    model = train({"objective": "multi:softprob", "num_class": 3, "max_depth": 3}, DMatrix(X, Y), 4)
    mlflow.xgboost.save_model(model, place, signature=infer_signature(X, model.predict(DMatrix(X))), **GIVEN)
    return ASKED, {}


def xgboost_margin(place: str) -> Saved:
    """A parameter that turns the answer into another, unless a request says it."""
    model = train({"objective": "binary:logistic", "max_depth": 2}, DMatrix(X, Y > 0), 3)
    margins = model.predict(DMatrix(X), output_margin=True)
    signature = infer_signature(X, margins, {"output_margin": True})
    given = {"pip_requirements": [*GIVEN["pip_requirements"], f"xgboost-cpu=={xgboost.__version__}"]}
    mlflow.xgboost.save_model(model, place, signature=signature, **given)
    return ASKED, {}


def lightgbm_classifier(place: str) -> Saved:
    model = LGBMClassifier(n_estimators=4, verbose=-1).fit(X, Y)
    mlflow.lightgbm.save_model(model, place, signature=infer_signature(X, model.predict(X)), **GIVEN)
    return ASKED, {}


def lightgbm_booster(place: str) -> Saved:
    model = LGBMRegressor(n_estimators=4, verbose=-1).fit(X, Y).booster_
    mlflow.lightgbm.save_model(model, place, signature=infer_signature(X, model.predict(X)), **GIVEN)
    return ASKED, {}


def onnx(place: str) -> Saved:
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["inputs"], ["scores"])],
        "g",
        [info("inputs", TensorProto.FLOAT, ["N", 4])],
        [info("scores", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    asked = ASKED.to_numpy(dtype=np.float32)
    mlflow.onnx.save_model(model, place, signature=infer_signature({"inputs": asked}, {"scores": asked}), **GIVEN)
    return {"inputs": asked}, {}


class Weighted(mlflow.pyfunc.PythonModel):
    """Code with an artefact, a parameter and a column that may be missing."""

    def load_context(self, context: Any) -> None:
        self.factor = float(Path(context.artifacts["factor"]).read_text())

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        whole = model_input["a"] + model_input["b"]
        if "c" in model_input:
            whole = whole + model_input["c"].fillna(0)
        words = [f"{number:.3f}" for number in whole]
        return pd.DataFrame({"sum": whole * self.factor * (params or {}).get("scale", 1.0), "words": words})


def python_model(place: str) -> Saved:
    factor = Path(place).with_suffix(".factor")
    factor.write_text("2.5")
    inputs = Schema([ColSpec("double", "a"), ColSpec("long", "b"), ColSpec("double", "c", required=False)])
    signature = ModelSignature(
        inputs=inputs,
        outputs=Schema([ColSpec("double", "sum"), ColSpec("string", "words")]),
        params=ParamSchema([ParamSpec("scale", "double", 1.0)]),
    )
    artifacts = {"factor": str(factor)}
    mlflow.pyfunc.save_model(place, python_model=Weighted(), artifacts=artifacts, signature=signature, **GIVEN)
    return pd.DataFrame({"a": [1.0, 2.5, -3.0], "b": [1, 2, 3], "c": [0.5, None, 4.0]}), {"scale": 3.0}


class Doubled(mlflow.pyfunc.PythonModel):
    """Code that takes and gives a tensor."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        assert isinstance(model_input, np.ndarray) and model_input.dtype == np.float32
        return model_input.sum(axis=2) * 2


def python_tensor(place: str) -> Saved:
    asked = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    signature = infer_signature(asked, asked.sum(axis=2))
    bounds = Path(place).with_suffix(".bounds")
    bounds.write_text("cloudpickle<3.1.2\n")
    given = {"pip_requirements": [*GIVEN["pip_requirements"], f"-c {bounds}"]}
    mlflow.pyfunc.save_model(place, python_model=Doubled(), signature=signature, **given)
    return asked, {}


MODELS: tuple[Callable[[str], Saved], ...] = (
    sklearn_skops, sklearn_pickle, sklearn_proba, sklearn_own_code, xgboost_classifier, xgboost_booster,
    xgboost_margin, lightgbm_classifier, lightgbm_booster, onnx, python_model, python_tensor,
)  # fmt: skip


def rows_of(asked: Any, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as records of the fields that edgepack makes of a signature."""
    if isinstance(asked, dict):
        return [{name: array[row].tolist() for name, array in asked.items()} for row in range(len(asked["inputs"]))]
    if isinstance(asked, np.ndarray):
        return [{"inputs": row} for row in asked.tolist()]
    return [{**row, **params} for row in json.loads(asked.to_json(orient="records", double_precision=15))]


def answers_of(found: Any) -> list[Any]:
    """What pyfunc gave: one list a row; records where it has columns of names."""
    if isinstance(found, dict):
        return [{name: array[row].tolist() for name, array in found.items()} for row in range(len(ASKED))]
    if isinstance(found, pd.DataFrame):
        return list(json.loads(found.to_json(orient="records", double_precision=15)))
    return list(np.asarray(found).tolist())


def main(folder: Path) -> None:
    for save in MODELS:
        place = folder / save.__name__
        asked, params = save(str(place))
        found = mlflow.pyfunc.load_model(str(place)).predict(asked, params=params or None)
        said = {"rows": rows_of(asked, params), "answers": answers_of(found)}
        place.with_suffix(".json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
