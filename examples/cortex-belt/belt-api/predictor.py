"""Weights on a belt, from what its gauges read: the model of each belt is a calibration, made at some temperature."""

import json
import os

import numpy as np


class PythonPredictor:
    def __init__(self, config, python_client):
        self.client = python_client
        self.unit = config["unit"]
        self.digits = config["digits"]

    def load_model(self, model_path):
        with open(os.path.join(model_path, "calibration.json")) as file:
            calibration = json.load(file)
        return np.array(calibration["factors"]), calibration["made_at_celsius"]

    def predict(self, payload, query_params):
        name = query_params["model"]
        factors, made_at = self.client.get_model(name, query_params.get("version", "latest"))
        readings = np.array(payload["readings"])
        warmer = np.full(len(readings), payload["celsius"] - made_at)
        terms = np.stack([np.ones(len(readings)), readings, readings**2, warmer, warmer * readings], axis=1)
        weights = terms @ factors
        return {"belt": name, "weights": np.round(weights, self.digits).tolist(), "unit": self.unit}
