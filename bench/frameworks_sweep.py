"""Trains every estimator that scikit-learn lists, in its environment: `python frameworks_sweep.py FOLDER NAME…`."""

from __future__ import annotations

import json
import pickle
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets, linear_model
from sklearn.utils import all_estimators

warnings.simplefilter("ignore")
FOLDER, ONLY = Path(sys.argv[1]), set(sys.argv[2:])
SECONDS = 20
WRAPPED = {"estimator": linear_model.LogisticRegression(max_iter=100), "base_estimator": None}


def made(kind: Any) -> Any:
    """An instance with small defaults; those that wrap others get a plain one."""
    classifier, regressor = linear_model.LogisticRegression(max_iter=100), linear_model.Ridge()
    inner = regressor if "Regressor" in kind.__name__ or "Regressor" in str(kind.__mro__) else classifier
    pairs = [("a", inner), ("b", type(inner)())]
    for arguments in ({}, {"estimator": inner}, {"estimators": pairs}, {"transformer_list": [("a", _scaler())]}):
        try:
            return kind(**arguments)
        except TypeError:
            continue
    return kind([("a", _scaler(), [0, 1])])


def _scaler() -> Any:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()


def rows(kind: str, name: str) -> tuple[Any, Any]:
    if kind == "regressor":
        x, y = datasets.load_diabetes(return_X_y=True)
        return x, np.abs(y)
    if kind == "classifier":
        return datasets.load_breast_cancer(return_X_y=True)
    return datasets.load_iris(return_X_y=True)


def train(kind: str, name: str, found: Any) -> dict[str, str] | None:
    x, y = rows(kind, name)
    for inputs in (x, np.abs(x), x[:, 0]):
        try:
            model = made(found).fit(inputs, y)
            answer = model.predict(inputs) if hasattr(model, "predict") else model.transform(inputs)
            answer = answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)
            (FOLDER / name).write_bytes(pickle.dumps(model))
            if inputs.ndim == 2 and answer.dtype != object:
                np.savez(FOLDER / f"{name}.npz", x=inputs[:200], y=answer[:200])
            return {"name": name, "kind": kind}
        except TimeoutError:
            return None
        except Exception:  # noqa: BLE001 - not fittable on these rows: tried on the next
            continue
    return None


def _stop(*_: Any) -> None:
    raise TimeoutError


signal.signal(signal.SIGALRM, _stop)
trained, left_out = [], []
for kind in ("classifier", "regressor", "cluster", "transformer"):
    for name, found in all_estimators(type_filter=kind):
        if (ONLY and name not in ONLY) or (FOLDER / name).exists():
            continue
        signal.alarm(SECONDS)
        done = train(kind, name, found)
        signal.alarm(0)
        trained.append(done) if done else left_out.append(name)
print(f"{len(trained)} estimators trained; not fittable here: {', '.join(left_out) or 'none'}", flush=True)
(FOLDER / "trained.json").write_text(json.dumps(trained))
