"""Which kind of handwriting is on a label: images are projected to a few features, then clustered."""

import pathlib
import pickle
from typing import Any, Set

import numpy as np
from mac.config.inference import CustomInferenceConfig
from mac.inference import Inference
from mac.inference.creation import InferenceBuilder
from mac.types import InferenceData
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA


class LabelClusters(Inference):
    """Clusters images of 8 × 8 grey values.

    `feature_extractor` projects an image, the model tells its cluster and how far the centre is.
    """

    def __init__(self, feature_extractor: PCA):
        self.feature_extractor = feature_extractor
        super().__init__()

    @property
    def expected_model_types(self) -> Set[Any]:
        return {KMeans}

    @Inference.model.setter  # type: ignore
    def model(self, model) -> None:
        """Take the clusters. Raises TypeError for anything but a KMeans."""
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _predict(self, input_data: InferenceData) -> InferenceData:
        images = input_data["image"]
        # an optional field: a camera that does not know its brightness sends null
        gain = np.array([1.0 if value is None else value for value in input_data["brightness"].tolist()])
        flat = images.reshape(len(images), -1) * gain[:, np.newaxis]
        features = self.feature_extractor.transform(flat)
        return {
            "cluster": self.model.predict(features).astype(np.int64),
            "distance": self.model.transform(features).min(axis=1).astype(np.float32),
        }


class LabelClustersBuilder(InferenceBuilder):
    """Loads the two models beside this file and makes the inference of them."""

    @property
    def inference(self) -> LabelClusters:
        return LabelClusters

    def create(self, config: CustomInferenceConfig) -> LabelClusters:
        """Make the inference; everything is loaded from below `config.model_path`."""
        inference = self.inference(self._load(config.model_path / "feature_extractor.pkl"))
        inference.model = self._load(config.model_path / "kmeans.pkl")
        return inference

    def _load(self, path: pathlib.Path) -> Any:
        with open(path.as_posix(), "rb") as file:
            return pickle.load(file)
