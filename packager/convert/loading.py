"""Opens an artefact, in the child only. Unpicklers are asked for every global; what is not on the list is refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

from .allowed import is_allowed, shown
from .fields import Unsuited


def load(path: str, form: str) -> Any:
    """Load `path`, a pickle, joblib or skops file, or a model of XGBoost's or LightGBM's own formats."""
    if form == "pickle":
        with open(path, "rb") as file:
            return _Guarded(file).load()
    if form == "joblib":
        return _joblib(path)
    if form == "skops":
        return _skops(path)
    if form == "xgboost":
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(path)
        return booster
    if form == "xgboost-estimator":
        return _xgboost_estimator(path)
    if form == "lightgbm":
        import lightgbm

        return lightgbm.Booster(model_file=path)
    raise Unsuited("form '%s' is unknown" % form)


def _xgboost_estimator(path: str) -> Any:
    """A booster's file as the class of scikit-learn's interface that saved it, which the file names."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    if kind not in ("classifier", "regressor"):
        raise Unsuited("it does not say that scikit-learn's interface of XGBoost saved it")
    model = xgboost.XGBClassifier() if kind == "classifier" else xgboost.XGBRegressor()
    model.load_model(path)
    return model


def _checked(module: str, name: str) -> None:
    if not is_allowed(module, name):
        raise Unsuited("the pickle names '%s.%s' while loading: stopped" % shown(module, name))


class _Guarded(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        _checked(module, name)
        return super().find_class(module, name)


def _joblib(path: str) -> Any:
    import joblib
    from joblib import numpy_pickle

    inherited = numpy_pickle.NumpyUnpickler.find_class

    def find_class(self: Any, module: str, name: str) -> Any:
        _checked(module, name)
        return inherited(self, module, name)

    numpy_pickle.NumpyUnpickler.find_class = find_class
    return joblib.load(path)


def _skops(path: str) -> Any:
    import skops.io

    untrusted = skops.io.get_untrusted_types(file=path)
    for each in untrusted:
        module, _, name = each.rpartition(".")
        _checked(module, name)
    return skops.io.load(path, trusted=untrusted)
