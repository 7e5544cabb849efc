"""Turns the readings of a pump into the features that the wear model was trained on."""

import logging
import pathlib

import numpy as np
import pandas as pd

import wallaroo

from mac.types import InferenceData

logger = logging.getLogger(__name__)

_here = pathlib.Path(__file__).parent
_nominal = pd.read_csv(_here / "artifacts" / "nominal.csv", index_col="model")

_features = [
    "rpm_ratio",
    "flow_ratio",
    "head_bar",
    "overheated",
    "service_ratio",
    "watts_per_litre",
]


def process_data(input_data: InferenceData) -> InferenceData:
    readings = pd.DataFrame(input_data)
    nominal = _nominal.reindex(readings["model"]).reset_index(drop=True)
    readings["rpm_ratio"] = readings["rpm"] / nominal["rpm"]
    readings["flow_ratio"] = readings["flow_lpm"] / nominal["flow_lpm"]
    readings["head_bar"] = readings["outlet_bar"] - readings["inlet_bar"]
    readings["overheated"] = np.where(readings["celsius"] > nominal["celsius"], 1, 0)
    readings["service_ratio"] = readings["hours_since_service"] / nominal["service_hours"]
    readings["watts_per_litre"] = readings["watts"] / readings["flow_lpm"].clip(lower=0.1)
    logger.debug("prepared %d readings", len(readings))

    return {"tensor": readings.loc[:, _features].fillna(0.0).to_numpy(dtype=np.float32)}
