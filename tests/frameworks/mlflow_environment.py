"""The environment of the real mlflow: what saves the models of these tests, and serves their registry."""

from __future__ import annotations

from packager.environments import Recipe

MLFLOW = Recipe(
    "mlflow",
    (
        "flask-wtf",  # of the server that asks for a login
        "lightgbm",
        "mlflow==3.17.2",
        "onnx<1.24",
        "onnxruntime",
        "protobuf>=6.33,<7",
        "scikit-learn==1.9.1",
        "skops",
        "xgboost-cpu",
    ),
    740,
    is_resolved_here=True,
)

# the last of the old kind: its scoring server speaks the other dialect of /invocations
OLD_MLFLOW = Recipe(
    "mlflow-1",
    ("flask<3", "mlflow-skinny==1.30.0", "numpy<2", "pandas==1.5.3", "setuptools<81", "werkzeug<3"),
    140,
    is_resolved_here=True,
)
