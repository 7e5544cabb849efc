"""Saves two models as MLflow does: `quality`, a scikit-learn pipeline, and `grade`, code of one's own.

    pip install -r requirements.txt && python train.py

The folders in git were made so; nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")

import mlflow
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
COLUMNS = ["alcohol", "malic_acid", "color_intensity", "proline"]
CULTIVARS = ("barolo", "grignolino", "barbera")


def quality(place: Path) -> None:
    """Which of three cultivars a wine is made of."""
    wines, kinds = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(wines[COLUMNS], [CULTIVARS[kind] for kind in kinds])
    signature = infer_signature(wines[COLUMNS], model.predict(wines[COLUMNS]))
    mlflow.sklearn.save_model(model, place, signature=signature, input_example=wines[COLUMNS].iloc[::60])


def grade(place: Path) -> None:
    """Code, a column that may be missing, and a parameter."""
    inputs = [ColSpec("double", name) for name in ("alcohol", "malic_acid", "color_intensity")]
    signature = ModelSignature(
        inputs=Schema([*inputs, ColSpec("double", "ash", required=False)]),
        outputs=Schema([ColSpec("double", "points"), ColSpec("string", "grade")]),
        params=ParamSchema([ParamSpec("strictness", "double", 1.0)]),
    )
    needed = [f"mlflow=={mlflow.__version__}", "pandas==3.1.1"]
    mlflow.pyfunc.save_model(place, python_model=str(HERE / "grade.py"), signature=signature, pip_requirements=needed)


if __name__ == "__main__":
    for make in (quality, grade):
        shutil.rmtree(HERE / make.__name__, ignore_errors=True)
        make(HERE / make.__name__)
    described = HERE / "grade" / "MLmodel"  # mlflow writes down where the code lay, which nothing reads
    described.write_text(described.read_text().replace(f"{HERE}{os.sep}", ""))
