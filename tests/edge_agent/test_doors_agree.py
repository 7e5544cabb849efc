"""The same row gives the same numbers through every door: for both examples, bit for bit as far as text allows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.pipeline import LogPolicy
from bundle.store import unpack
from columns import Columns
from columns.arrow import ARROW_FILE, ARROW_STREAM, decode_arrow, encode_arrow
from columns.oip_columns import encode_oip
from columns.records import encode_records
from edge_agent.serving import ActivePipeline
from edge_agent.spool import Spool
from packager import Project, package
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import JSON, VERSION, Front, Served

EXAMPLES = Path(__file__).parents[2] / "examples"
RAW = "Inference-Header-Content-Length"
ROWS = 5


@pytest.fixture(scope="module", params=["wine-line", "digits-camera"])
def example(request, tmp_path_factory):
    """An example as a device serves it, and the answers of its engine."""
    folder = tmp_path_factory.mktemp(request.param)
    packaged = package(Project.open(EXAMPLES / request.param), [host_target()], cache=folder / "cache")
    with Served(folder, Front()) as served:
        loaded = LoadedPipeline.open(unpack(bundles(packaged.index)[0], folder / "bundles"))
        served.spools["it"] = spool = Spool(
            folder / "spool", LogPolicy(durability="relaxed", max_value_bytes=0), "here"
        )
        served.serving.switch("it", ActivePipeline("it", VERSION, "sha256:0", loaded, spool, "here"))
        inputs = loaded.bundle.golden().inputs.slice(0, ROWS)
        yield served, inputs, loaded.infer(inputs).outputs


def lists(columns: Columns) -> dict[str, list]:
    return {name: array.tolist() for name, array in columns.arrays.items()}


def of_rows(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def records(inputs):
    return json.loads(encode_records(inputs, "."))


def by_records(served, inputs, path="/infer"):
    headers = {"Content-Type": JSON}
    return of_rows([row["out"] for row in served.post(path, data=encode_records(inputs, "."), headers=headers).json()])


def by_arrow(served, inputs, form="file"):
    kind = ARROW_FILE if form == "file" else ARROW_STREAM
    answer = served.post("/pipelines/it?dataset[]=out&dataset.separator=.", data=encode_arrow(inputs, form),
                         headers={"Content-Type": kind, "Accept": kind})  # fmt: skip
    return {name.removeprefix("out."): values for name, values in lists(decode_arrow(answer.content)).items()}


def by_oip(served, inputs, raw):
    body, size = encode_oip(inputs, raw=raw)
    headers = {RAW: str(size)} if raw else {}
    answer = served.post("/v2/models/it/infer", data=body, headers=headers).json()
    return {each["name"]: np.reshape(each["data"], each["shape"]).tolist() for each in answer["outputs"]}


def by_kserve(served, inputs):
    rows = served.post("/v1/models/it:predict", data=json.dumps({"instances": records(inputs)})).json()["predictions"]
    return of_rows(rows)


def by_predict(served, inputs):
    body = json.dumps(of_rows(records(inputs)))
    return served.post("/predict", data=body, headers={"Content-Type": "application/json"}).json()["prediction"]


def by_custom_json(served, inputs):
    headers = {"Content-Type": "application/json; format=wallaroo"}
    return served.post("/infer", data=json.dumps(of_rows(records(inputs))), headers=headers).json()


DOORS = {
    "infer": by_records,
    "pipeline": lambda served, inputs: by_records(served, inputs, "/pipelines/it"),
    "sdk": lambda served, inputs: by_records(served, inputs, "/v1/api/pipelines/infer/it-1/it"),
    "arrow file": by_arrow,
    "arrow stream": lambda served, inputs: by_arrow(served, inputs, "stream"),
    "oip": lambda served, inputs: by_oip(served, inputs, raw=False),
    "oip raw": lambda served, inputs: by_oip(served, inputs, raw=True),
    "kserve": by_kserve,
    "predict": by_predict,
    "custom json": by_custom_json,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("rows", [1, ROWS])
def test_the_same_rows_give_the_same_numbers_through_every_door(example, door, rows):
    served, inputs, outputs = example
    answered = DOORS[door](served, inputs.slice(0, rows))
    for field in outputs.schema:
        dtype = field.type.tensor_dtype_and_shape()[0]
        assert np.array_equal(np.array(answered[field.name], dtype), outputs[field.name][:rows]), field.name


def test_the_log_has_the_same_numbers_for_each_of_them(example):
    served, inputs, outputs = example
    before = len(served.post("/logs").json())
    for door in DOORS.values():
        door(served, inputs.slice(0, 1))
    logged = served.post("/logs").json()[before:]
    assert len(logged) == len(DOORS)
    name = outputs.schema.names[-1]
    wanted = np.ravel(outputs[name][:1]).astype(np.float32)
    for row in logged:
        assert np.array_equal(np.ravel(np.array(row["out"][name], np.float32)), wanted)
