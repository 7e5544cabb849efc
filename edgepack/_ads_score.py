"""score.py as `edgepack.ads` writes it: what Oracle ADS's deployments call, with the code of one library."""

from __future__ import annotations

from dataclasses import dataclass

from edgepack import __version__

INPUTS = "inputs"  # the one field of a network
_HEAD = '''"""load_model() and predict() for deployments of Oracle ADS. Written by edgepack {version}; yours to edit."""

import base64
import json
import os
import sys
from functools import lru_cache
from io import BytesIO, StringIO

{imports}

model_name = "{model}"


@lru_cache(maxsize=1)
def load_model(model_file_name=model_name):
    """The model. It is loaded when this file is imported, as the default of predict()."""
    model_dir = os.path.dirname(os.path.realpath(__file__))
    if model_dir not in sys.path:
        sys.path.insert(0, model_dir)
    if model_file_name not in os.listdir(model_dir):
        raise Exception("{{}} is not in {{}}".format(model_file_name, model_dir))
    path = os.path.join(model_dir, model_file_name)
{load}


@lru_cache(maxsize=1)
def fetch_data_type_from_schema(
    input_schema_path=os.path.join(os.path.dirname(os.path.realpath(__file__)), "input_schema.json"),
):
    """Field -> dtype, as input_schema.json has them."""
    data_type = {{}}
    if os.path.exists(input_schema_path):
        with open(input_schema_path) as file:
            schema = json.load(file)
        for column in schema["schema"]:
            data_type[str(column["name"])] = column["dtype"]
    return data_type


def deserialize(data, input_schema_path):
    """A payload as the model takes it. Bytes stay as they are: write here what they mean, if they are sent."""
    if isinstance(data, bytes):
        return data
    data_type = data.get("data_type", "") if isinstance(data, dict) else ""
    json_data = data.get("data", data) if isinstance(data, dict) else data
    if "numpy.ndarray" in data_type:
        {array} np.load(BytesIO(base64.b64decode(json_data.encode("utf-8"))), allow_pickle=False)
{deserialize}


def pre_inference(data, input_schema_path):
    """What happens to a payload before the model sees it."""
    return deserialize(data, input_schema_path)


def post_inference(yhat):
    """The model's answer as what JSON can hold."""
    return {post}


def predict(
    data,
    model=load_model(),
    input_schema_path=os.path.join(os.path.dirname(os.path.realpath(__file__)), "input_schema.json"),
):
    """The answer to one payload: {{"prediction": ...}}."""
    inputs = pre_inference(data, input_schema_path)
{predict}
'''
_TABLE = """\
    if "pandas.core.series.Series" in data_type:
        return pd.Series(json_data)
    if "pandas.core.frame.DataFrame" in data_type or isinstance(json_data, str):
        return pd.read_json(StringIO(json_data), dtype=fetch_data_type_from_schema(input_schema_path))
    if isinstance(json_data, dict):
        return pd.DataFrame.from_dict(json_data)
    return json_data"""
_TENSOR = f"""\
    rows = json_data.get("{INPUTS}", json_data) if isinstance(json_data, dict) else json_data
    return np.asarray(rows, dtype=fetch_data_type_from_schema(input_schema_path)["{INPUTS}"])"""
_ASK = """\
    return {"prediction": post_inference(model.predict(inputs))}"""
_TABLE_IMPORTS = "import numpy as np\nimport pandas as pd"


@dataclass(frozen=True)
class Library:
    """What differs between libraries: imports, how the file is loaded, payloads read, the model asked."""

    imports: str
    load: str
    deserialize: str = _TABLE
    predict: str = _ASK
    post: str = "yhat.tolist()"

    @property
    def array(self) -> str:
        """What becomes of an array: rows of a table are asked as they are, those of a network in its dtype."""
        return "json_data =" if self.deserialize == _TENSOR else "return"


def _unpickled(module: str) -> Library:
    return Library(
        f"{_TABLE_IMPORTS}\nimport {module}", f'    with open(path, "rb") as file:\n        return {module}.load(file)'
    )


LIBRARIES = {
    "joblib": _unpickled("joblib"),
    "cloudpickle": _unpickled("cloudpickle"),
    "pickle": _unpickled("pickle"),
    "xgboost": Library(
        f"{_TABLE_IMPORTS}\nimport xgboost",
        "    booster = xgboost.Booster()\n    booster.load_model(path)\n    return booster",
        predict='    return {"prediction": post_inference(model.predict(xgboost.DMatrix(inputs)))}',
    ),
    "lightgbm": Library(f"{_TABLE_IMPORTS}\nimport lightgbm", "    return lightgbm.Booster(model_file=path)"),
    "torchscript": Library(
        "import numpy as np\nimport torch",
        '    return torch.jit.load(path, map_location="cpu").eval()',
        _TENSOR,
        "    with torch.no_grad():\n        yhat = model(torch.as_tensor(inputs))\n"
        '    return {"prediction": post_inference(yhat)}',
    ),
    "keras": Library(
        "import numpy as np\nimport tensorflow as tf",
        "    return tf.keras.models.load_model(path)",
        _TENSOR,
        '    return {"prediction": post_inference(model(tf.convert_to_tensor(inputs)))}',
        "yhat.numpy().tolist()",
    ),
    "none": Library(
        _TABLE_IMPORTS,
        '    raise NotImplementedError("load_model() is yours to write: load the model from path, and return it")',
        post="yhat",
    ),
}


def score_py(serializer: str, model: str) -> str:
    """The text of score.py for a model file that was written by a serializer."""
    made = LIBRARIES[serializer]
    return _HEAD.format(
        version=__version__,
        imports=made.imports,
        model=model,
        load=made.load,
        array=made.array,
        deserialize=made.deserialize,
        post=made.post,
        predict=made.predict,
    )
