"""Artifacts of Oracle ADS, as the tests change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packager import Checklist, Project
from packager.archives import Tree, open_tree
from packager.inspect import inspect_step

SCORE = """
import json
import os

import numpy as np

model_name = "weights.json"


def load_model():
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), model_name)) as file:
        return np.array(json.load(file))


def predict(data, model=load_model()):
    if isinstance(data, bytes):
        return {"prediction": len(data)}
    return {"prediction": (np.column_stack([data["age"], data["income"]]) @ model).tolist()}
"""


RUNTIME = """
MODEL_ARTIFACT_VERSION: '3.0'
MODEL_DEPLOYMENT:
  INFERENCE_CONDA_ENV:
    INFERENCE_ENV_PATH: oci://bucket@namespace/generalml_p38_cpu_v1
    INFERENCE_ENV_SLUG: generalml_p38_cpu_v1
    INFERENCE_ENV_TYPE: data_science
    INFERENCE_PYTHON_VERSION: 3.8
"""


def attribute(name: object, dtype: str = "float64", **more: object) -> dict[str, object]:
    return {"name": name, "dtype": dtype, "feature_type": "Continuous", "required": True, **more}


def schema(*attributes: dict[str, object]) -> str:
    return json.dumps({"schema": list(attributes), "version": "1.1"})


FILES = {
    "score.py": SCORE,
    "weights.json": "[0.5, 2]",
    "runtime.yaml": RUNTIME,
    "input_schema.json": schema(attribute("age", "int64", order=0), attribute("income", order=1)),
    "output_schema.json": schema(attribute(0)),
    ".model-ignore": "# not needed\n*.ipynb\nnotes/\n",
    "train.ipynb": "{}",
    "notes/today.txt": "none",
}


def artifact(place: Path, **changes: str | None) -> Path:
    """An artifact's folder; `changes` stand for files with `_dot_` for a dot, None for one that is missing."""
    for name, text in {**FILES, **{key.replace("_dot_", "."): text for key, text in changes.items()}}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return place


def inspected(source: Path, tmp_path: Path, checklist: Checklist | None = None) -> Any:
    project = Project.open(source)
    return inspect_step(project.steps[0], project.root, checklist or Checklist(), tmp_path / "cache")


def tree_of(place: Path, **changes: str | None) -> Tree:
    return open_tree(artifact(place, **changes), place)
