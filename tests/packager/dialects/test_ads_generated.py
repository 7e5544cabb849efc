"""A score.py as ADS generates it, told from one that decides anything itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack._ads_score import LIBRARIES, score_py
from packager.dialects.ads_score import read_score
from tests.packager.dialects.ads_artifacts import tree_of

POST = "return yhat.tolist()"


@pytest.mark.parametrize("serializer, kind", [
    ("joblib", "pickle"), ("pickle", "pickle"), ("cloudpickle", "pickle"), ("xgboost", "xgboost"),
    ("lightgbm", "lightgbm"), ("keras", "keras"), ("torchscript", "torchscript"), ("none", None),
])  # fmt: skip
def test_a_generated_score_py_is_told_by_its_shape(tmp_path: Path, serializer: str, kind: str | None) -> None:
    assert serializer in LIBRARIES
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=score_py(serializer, "weights.json")))
    assert (found.generated.kind if found.generated else None) == kind
    assert not found.reads_json_text


@pytest.mark.parametrize(
    "change, why",
    [
        (
            ("return deserialize(data, input_schema_path)", "return deserialize(data, None) * 2"),
            "pre_inference computes",
        ),
        (("return yhat.tolist()", "return [2 for each in yhat]"), "post_inference computes"),
        (("return yhat.tolist()", "return sorted(yhat.tolist())"), "post_inference calls sorted"),
        (("model.predict(inputs)", "model.predict_proba(inputs)"), "predict calls model.predict_proba"),
        (("model_name = ", "limit = min(1, 2)\nmodel_name = "), "line 14 is none of ADS's own"),
        (("def predict(", "def other():\n    return 1\n\n\ndef predict("), "other in line 71 is none of ADS's own"),
        (("joblib.load(file)", "eval(file)"), "load_model calls eval"),
        (('model_name = "weights.json"', 'model_name = str("weights.json")'), "does not name its model"),
        (('model_name = "weights.json"', 'model_name = "./weights.json"'), "its model_name is no file of the artifact"),
        ((POST, "yhat[yhat > 5000] = 5000\n    return yhat.tolist()"), "post_inference stores into a value"),
        ((POST, "yhat.flags.writeable = False\n    return yhat.tolist()"), "post_inference stores into a value"),
        ((POST, "return yhat.tolist() if yhat[0] < 100 else [0]"), "post_inference computes"),
        ((POST, "if 'vip' in yhat:\n        return yhat\n    return yhat.tolist()"), "post_inference decides"),
        ((POST, "if isinstance(yhat, int) or yhat:\n        return yhat\n    return yhat.tolist()"), "decides in line"),
        ((POST, "return yhat.tolist() or yhat"), "post_inference computes"),
        ((POST, "return yhat.T.tolist()"), "post_inference calls yhat.T.tolist"),
        ((POST, "return yhat.T"), "post_inference takes .T of a value"),
        ((POST, "if isinstance(yhat, list):\n        return 'odd'\n    return yhat.tolist()"), "a value of its own"),
        ((POST, "return f'{yhat.tolist()}'"), "post_inference gives a value of its own"),
        ((POST, "return {'labels': yhat.tolist()}"), "post_inference makes an object"),
        ((POST, "print(f'{yhat.fill(0)}')\n    return yhat.tolist()"), "post_inference calls yhat.fill"),
        ((POST, "return base64.tolist(yhat)"), "post_inference calls base64.tolist"),
        ((POST, "import mine\n    return mine.tolist(yhat)"), "it imports mine.py"),
        ((POST, "return yhat.to(np.int8).tolist()"), "post_inference takes .int8 of a value"),
        (
            (POST, "from numpy import int8\n    return yhat.to(int8).tolist()"),
            "calls yhat.to with more than",
        ),
        (("def post_inference", "@np.vectorize\ndef post_inference"), "is decorated"),
        (("import base64", "import base64\nfrom base64 import *"), "it imports *"),
        (("pd.Series(json_data)", "pd.Series(json_data, dtype=int)"), "with more than ADS hands it"),
        (('json_data = data.get("data", data)', 'json_data = data.get("vip", data)'), "calls data.get with more than"),
        (('if "numpy.ndarray" in data_type', 'if "vip" in data_type'), "deserialize decides"),
        (("model.predict(inputs)", "model.predict(inputs, True)"), "predict calls model.predict"),
        (('return {"prediction": post', 'return {"answer": post'), "predict answers otherwise"),
        (("inputs = pre_inference", "global inputs\n    inputs = pre_inference"), "predict computes"),
    ],
)
def test_whatever_else_a_score_py_does_makes_it_one_that_runs_itself(
    tmp_path: Path, change: tuple[str, str], why: str
) -> None:
    text = score_py("joblib", "weights.json")
    assert change[0] in text
    beside = {"mine_dot_py": "def tolist(yhat):\n    return [0]\n"}
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=text.replace(*change), **beside))
    assert found.generated is None and why in str(found.why_not)


DIGEST = """
def _verify_model_artifact_file(folder, name):
    found = hashlib.sha256()
    with open(os.path.join(folder, name), "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            found.update(chunk)
    if found.hexdigest() != expected_digest:
        raise ValueError("{} was changed".format(name))
"""
DEVICE = """
def get_torch_device():
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


device = torch.device(get_torch_device())
"""
TENSOR = """
def _load_structured_torch_tensor(payload):
    if not isinstance(payload, dict) or payload.get("__ads_torch_tensor__") != 1:
        raise ValueError("no tensor: {}".format(type(payload)))
    if "data" not in payload or payload.get("shape") is None:
        raise ValueError("no values")
    dtype = getattr(torch, str(payload["dtype"]).split(".")[-1])
    values = torch.tensor(payload["data"], dtype=dtype).reshape(payload["shape"])
    return values.to(get_torch_device())
"""


def with_beside(beside: str) -> str:
    """A generated score.py that calls what newer versions of ADS bring along."""
    text = score_py("torchscript", "weights.json").replace("import json\n", "import hashlib\nimport json\n", 1)
    text = text.replace('model_name = "weights.json"', 'model_name = "weights.json"\nexpected_digest = "0"')
    text = text.replace("@lru_cache", f"{beside}\n\n@lru_cache", 1)
    text = text.replace("    path =", "    _verify_model_artifact_file(model_dir, model_file_name)\n    path =")
    reads = '    if "torch.Tensor" in data_type:\n        return _load_structured_torch_tensor(json_data)\n    rows ='
    text = text.replace("    rows =", reads)
    return text.replace(
        "return deserialize(data, input_schema_path)",
        "data = deserialize(data, input_schema_path)\n    return data.to(device)",
    )


def test_what_newer_versions_of_ads_bring_along_is_theirs_too(tmp_path: Path) -> None:
    """A check of the model's digest in load_model, a device for the tensors, tensors as JSON."""
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=with_beside(DIGEST + DEVICE + TENSOR)))
    assert found.generated is not None, found.why_not


@pytest.mark.parametrize(
    "change, why",
    [
        (
            ("    return values.to", "    if values > 3:\n        values = None\n    return values.to"),
            "decides in line",
        ),
        (
            ("    return values.to", "    if values[0] == 3:\n        values = 0\n    return values.to"),
            "decides in line",
        ),
        (("    return values.to", "    if 5 in payload:\n        values = 0\n    return values.to"), "decides in line"),
        (("return values.to", "return values.clamp(0, 9).to"), "calls values.clamp"),
        (("    return values.to", "    values = values.clamp(0, 9)\n    return values.to"), "calls values.clamp"),
        (("return values.to(get_torch_device())", "return values * (values < 9)"), "computes in line"),
        (("return values.to(get_torch_device())", "return values[0:1]"), "takes a part of a value"),
        (("    return values.to", "    for each in values:\n        pass\n    return values.to"), "computes in line"),
        (("    return values.to", "    np.round = None\n    return values.to"), "reaches out of itself"),
        (("    return values.to", "    values[0] = 0\n    return values.to"), "reaches out of itself"),
        (
            ("    found = hashlib.sha256()", "    np.ndarray.tolist = list\n    found = hashlib.sha256()"),
            "reaches out of",
        ),
        (
            ("    found = hashlib.sha256()", "    global model_name\n    found = hashlib.sha256()"),
            "reaches out of itself",
        ),
        (("    found = hashlib.sha256()", "    exec(name)\n    found = hashlib.sha256()"), "calls exec"),
        (("    return torch.device(", "    torch.set_default_dtype(0)\n    return torch.device("), "set_default_dtype"),
        (
            ("def get_torch_device", "@torch.jit.script\ndef get_torch_device"),
            "get_torch_device in line 28 is decorated",
        ),
    ],
)
def test_what_stands_beside_may_not_go_by_the_data_nor_change_anything(
    tmp_path: Path, change: tuple[str, str], why: str
) -> None:
    text = with_beside(DIGEST + DEVICE + TENSOR)
    assert change[0] in text
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=text.replace(*change)))
    assert found.generated is None and why in str(found.why_not)


def test_the_data_is_handed_to_nothing_that_may_go_by_it(tmp_path: Path) -> None:
    text = with_beside(DIGEST + DEVICE + TENSOR)
    for change in (
        ("_load_structured_torch_tensor(json_data)", "get_torch_device(json_data)"),
        ("_load_structured_torch_tensor(json_data)", "_verify_model_artifact_file(json_data, '')"),
    ):
        found = read_score(tree_of(tmp_path / "churn", score_dot_py=text.replace(*change)))
        assert found.generated is None and "deserialize calls" in str(found.why_not)


def test_names_of_variables_and_what_is_printed_are_free(tmp_path: Path) -> None:
    text = score_py("joblib", "weights.json")
    for change in (
        ("if model_file_name not in os.listdir(model_dir):", "if not model_file_name in os.listdir(model_dir):"),
        ("    path =", "    print(f'loads {model_file_name} of {model_dir} ...')\n    path ="),
        ("        return data\n", "        logging.warning('bytes: as they are')\n        return data\n"),
        ("import base64", "import base64\nimport logging\nfrom typing import Any, List"),
        ("def post_inference(yhat):", "def post_inference(yhat: Any) -> List[Any]:"),
        ("return np.load(BytesIO(", "file = BytesIO(("),
        (", allow_pickle=False)\n", ")\n        return np.load(file)\n"),
        ("inputs = pre_inference", "features = pre_inference"), ("predict(inputs)", "predict(features)"),
    ):  # fmt: skip
        assert change[0] in text
        text = text.replace(*change)
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=text))
    assert found.generated is not None, found.why_not
