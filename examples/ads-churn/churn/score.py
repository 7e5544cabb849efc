"""Who leaves the gym: load_model() and predict() as a model deployment of Oracle's data science service calls them."""

import json
import logging
import os
from functools import lru_cache
from io import StringIO

import joblib
import pandas as pd

model_name = "model.joblib"
here = os.path.dirname(os.path.realpath(__file__))


@lru_cache(maxsize=1)
def load_model(model_file_name=model_name):
    with open(os.path.join(here, model_file_name), "rb") as file:
        return joblib.load(file)


@lru_cache(maxsize=1)
def fetch_data_type_from_schema(input_schema_path=os.path.join(here, "input_schema.json")):
    with open(input_schema_path) as file:
        return {column["name"]: column["dtype"] for column in json.load(file)["schema"]}


def deserialize(data, input_schema_path):
    """A DataFrame of what came: what ADS's client sends, a table of columns, rows, or the bytes of a CSV file."""
    if isinstance(data, bytes):
        logging.warning("bytes: read as CSV")
        return pd.read_csv(StringIO(data.decode("utf-8")))
    json_data = data.get("data", data) if isinstance(data, dict) else data
    if isinstance(json_data, str):
        return pd.read_json(StringIO(json_data), dtype=fetch_data_type_from_schema(input_schema_path))
    return pd.DataFrame(json_data)


def pre_inference(data, input_schema_path):
    table = deserialize(data, input_schema_path)
    return table.assign(visits_a_month=table["visits"] / table["months"])


def post_inference(yhat):
    return [round(float(probability), 6) for probability in yhat[:, 1]]


def predict(data, model=load_model(), input_schema_path=os.path.join(here, "input_schema.json")):
    members = pre_inference(data, input_schema_path)
    return {"prediction": post_inference(model.predict_proba(members))}
