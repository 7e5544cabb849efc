"""Oracle ADS's model classes, as far as a training program needs them: prepare, verify, introspect, save.

    from edgepack.ads import SklearnModel, UseCaseType

    model = SklearnModel(estimator, artifact_dir="churn")
    model.prepare(X_sample=x, y_sample=y, use_case_type=UseCaseType.BINARY_CLASSIFICATION)
    model.verify(x[:5])
    model.save(hub="http://hub:8090")

The folder is what ADS writes: score.py, runtime.yaml, input_schema.json, output_schema.json, .model-ignore, the model.
It runs wherever ADS's does. What all classes do is `_ads_model`'s; here is how each library keeps a model and asks it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edgepack._ads_model import GenericModel
from edgepack._ads_schema import array_of, in_one_line
from edgepack.errors import BadInput

__all__ = [
    "GenericModel",
    "LightGBMModel",
    "PyTorchModel",
    "SklearnModel",
    "SparkPipelineModel",
    "TensorFlowModel",
    "UseCaseType",
    "XGBoostModel",
]


class UseCaseType:
    """What a model is for, in ADS's words."""

    BINARY_CLASSIFICATION = "binary_classification"
    REGRESSION = "regression"
    MULTINOMIAL_CLASSIFICATION = "multinomial_classification"
    CLUSTERING = "clustering"
    RECOMMENDER = "recommender"
    DIMENSIONALITY_REDUCTION = "dimensionality_reduction/representation"
    TIME_SERIES_FORECASTING = "time_series_forecasting"
    ANOMALY_DETECTION = "anomaly_detection"
    TOPIC_MODELING = "topic_modeling"
    NER = "ner"
    SENTIMENT_ANALYSIS = "sentiment_analysis"
    IMAGE_CLASSIFICATION = "image_classification"
    OBJECT_LOCALIZATION = "object_localization"
    OTHER = "other"


class SklearnModel(GenericModel):
    """A fitted estimator of scikit-learn, kept with joblib."""

    framework = "sklearn"
    _file = "model.joblib"

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        import joblib

        return "joblib", self._pickled(stage, name or self._file, _dumped(joblib))


class XGBoostModel(SklearnModel):
    """An XGBoost estimator, kept with joblib so that it answers labels, or a Booster in its own form."""

    framework = "xgboost"

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        if hasattr(self.estimator, "predict_proba") or hasattr(self.estimator, "get_booster"):
            return super()._write_model(stage, name, sample)
        self.estimator.save_model(str(stage / (name or "model.json")))
        return "xgboost", name or "model.json"

    def _predict(self, rows: Any) -> Any:
        if hasattr(self.estimator, "get_booster"):
            return self.estimator.predict(rows)
        from xgboost import DMatrix

        return self.estimator.predict(DMatrix(rows))


class LightGBMModel(SklearnModel):
    """A LightGBM estimator, kept with joblib so that it answers labels, or a Booster in its own form."""

    framework = "lightgbm"

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        if hasattr(self.estimator, "get_params"):
            return super()._write_model(stage, name, sample)
        self.estimator.save_model(str(stage / (name or "model.txt")))
        return "lightgbm", name or "model.txt"


class PyTorchModel(GenericModel):
    """A module of PyTorch, kept as TorchScript: scripted, or traced with the first rows of X_sample."""

    framework = "pytorch"
    _file = "model.pt"
    _takes_tensors = True

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        import torch

        module = self.estimator.eval()
        try:
            made = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
        except Exception as error:  # whatever the compiler refuses
            if sample is None:
                raise BadInput(
                    f"the module does not script ({in_one_line(error)}): give X_sample, to have it traced"
                ) from error
            made = torch.jit.trace(module, torch.as_tensor(array_of(sample[:2])))
        made.save(str(stage / (name or self._file)))
        return "torchscript", name or self._file

    def _predict(self, rows: Any) -> Any:
        import torch

        with torch.no_grad():
            return self.estimator.eval()(torch.as_tensor(array_of(rows)))


class TensorFlowModel(GenericModel):
    """A Keras model of TensorFlow, kept in Keras's own form."""

    framework = "tensorflow"
    _file = "model.keras"
    _takes_tensors = True

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        self.estimator.save(str(stage / (name or self._file)))
        return "keras", name or self._file

    def _predict(self, rows: Any) -> Any:
        return self.estimator(array_of(rows))


class SparkPipelineModel:
    """ADS's class for Spark pipelines, which do not run on a device."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise BadInput(
            "no Spark runs on a device: convert the fitted pipeline with onnxmltools.convert_sparkml and package the "
            ".onnx, or train it with scikit-learn"
        )


def _dumped(joblib: Any) -> Any:
    def dumps(estimator: Any) -> bytes:
        file = io.BytesIO()
        joblib.dump(estimator, file)
        return file.getvalue()

    return dumps
