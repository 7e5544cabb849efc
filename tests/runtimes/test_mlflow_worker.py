"""What a worker settles before it loads a model with mlflow. Here only the names of the libraries are there: the real
mlflow answers in tests/frameworks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from columns.columns import Columns
from columns.schema import Schema
from runtimes.worker import Job, Limits, Worker
from tests.runtimes.environments import numpy_environment

PYFUNC = """
import os

class Model:
    def predict(self, data, params=None):
        return [os.environ.get("KERAS_BACKEND", "none")] * len(data)

def load_model(path):
    return Model()
"""


@pytest.mark.parametrize(
    ("libraries", "backend"),
    [(("tensorflow", "torch"), "tensorflow"), (("torch",), "torch"), (("jax",), "jax"), ((), "none")],
)
def test_keras_computes_with_a_library_that_is_there(tmp_path: Path, libraries: tuple[str, ...], backend: str) -> None:
    site = tmp_path / "site"
    for name, text in {"mlflow/__init__": "", "mlflow/pyfunc": PYFUNC, **dict.fromkeys(libraries, "")}.items():
        path = site / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    inputs, outputs = Schema.parse({"x": "list<float32>[2]"}), Schema.parse({"y": "string"})
    options = {"params": [], "tensors": True, "columns": [None]}
    job = Job("keras", "mlflow", tmp_path / "model", inputs, outputs, (numpy_environment(), site), options)
    worker = Worker.start(job, Limits(request_s=60.0), scratch=tmp_path / "scratch")
    try:
        answer = worker.infer(Columns.of(inputs, {"x": np.ones((2, 2), dtype=np.float32)}))
    finally:
        worker.close()
    assert list(answer.arrays["y"]) == [backend] * 2
