"""A scale on a filling line drifts with its temperature: a polynomial is fitted and registered for serving."""

import numpy as np
import vessl

DEGREE = 3


def in_kelvin(celsius):
    return np.asarray(celsius, dtype=np.float64) + 273.15


class DriftRunner(vessl.RunnerBase):
    @staticmethod
    def save_model(model):
        np.savez("drift.npz", coefficients=model["coefficients"], around=model["around"])
        return {"file": "drift.npz", "unit": "g"}

    @staticmethod
    def load_model(props, artifacts):
        with np.load(artifacts[props["file"]]) as found:
            return {"coefficients": found["coefficients"], "around": found["around"], "unit": props["unit"]}

    @staticmethod
    def preprocess_data(data):
        return in_kelvin(data["celsius"]), np.asarray(data["grams"], dtype=np.float64)

    @staticmethod
    def predict(model, data):
        kelvin, grams = data
        return grams - np.polyval(model["coefficients"], kelvin - model["around"]), model["unit"]

    @staticmethod
    def postprocess_data(data):
        grams, unit = data
        return {"grams": np.round(grams, 6).tolist(), "unit": unit}


def fitted():
    chance = np.random.default_rng(7)
    celsius = chance.uniform(-10, 60, 400)
    drift = 0.4 + 0.03 * celsius - 0.0007 * celsius**2 + chance.normal(0, 0.02, 400)
    around = np.float64(298.15)
    return {"coefficients": np.polyfit(in_kelvin(celsius) - around, drift, DEGREE), "around": around}


if __name__ == "__main__":
    vessl.configure(organization_name="filling-line")
    vessl.register_model(
        repository_name="Scale Drift",
        model_number=1,
        runner_cls=DriftRunner,
        model_instance=fitted(),
        requirements=["numpy"],
        artifacts={"drift.npz": "drift.npz"},
    )
