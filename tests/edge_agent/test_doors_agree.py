"""The same row gives the same numbers through every door: in each example, bit for bit as far as text allows."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.pipeline import LogPolicy
from bundle.store import unpack
from columns import Columns
from columns.arrow import ARROW_FILE, ARROW_STREAM, decode_arrow, encode_arrow
from columns.oip import encode_request
from columns.oip_columns import encode_oip
from columns.oip_tensors import Tensor, from_raw, to_raw
from columns.records import encode_records
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from packager import Project, package
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import JSON, VERSION, Front, Served

EXAMPLES = Path(__file__).parents[2] / "examples"
RAW = "Inference-Header-Content-Length"
ROWS = 5


@pytest.fixture(scope="module", params=["wine-line", "digits-camera", "wine-line plain", "vibration-anomaly"])
def example(request, tmp_path_factory):
    """An example as a device serves it, and the answers of its engine. Without validations it goes shorter ways."""
    name, _, plain = request.param.partition(" ")
    folder = tmp_path_factory.mktemp(name)
    project = shutil.copytree(EXAMPLES / name, folder / name)
    if plain:
        text = (project / "edgepack.toml").read_text()
        (project / "edgepack.toml").write_text(re.sub(r"\[validations\].*?\n\n", "", text, flags=re.S))
    packaged = package(Project.open(project), [host_target()], cache=folder / "cache")
    assert bool(packaged.spec.validations) != bool(plain)
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
    names = served.serving.pipelines[0].loaded.output.names
    return of_rows(rows) if len(names) > 1 else {names[0]: rows}  # a single output goes without its name there


def by_predict(served, inputs):
    body = json.dumps(of_rows(records(inputs)))
    return served.post("/predict", data=body, headers={"Content-Type": "application/json"}).json()["prediction"]


def by_custom_json(served, inputs):
    headers = {"Content-Type": "application/json; format=wallaroo"}
    return served.post("/infer", data=json.dumps(of_rows(records(inputs))), headers=headers).json()


def by_packed_records(served, inputs):
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    answer = served.post("/infer", data=gzip.compress(encode_records(inputs, ".")), headers=headers)
    assert answer.headers["Content-Encoding"] == "gzip"
    return of_rows([row["out"] for row in answer.json()])


def by_packed_arrow(served, inputs):
    body = zlib.compress(encode_arrow(inputs, "stream"))
    headers = {"Content-Type": ARROW_STREAM, "Content-Encoding": "deflate", "Accept": ARROW_STREAM}
    answer = served.post("/infer?dataset[]=out&dataset.separator=.", data=body, headers=headers)
    return {name.removeprefix("out."): values for name, values in lists(decode_arrow(answer.content)).items()}


def by_requested_outputs(served, inputs):
    """One output a request, raw and packed."""
    found = {}
    body, size = encode_oip(inputs, raw=True)
    for field in served.serving.pipelines[0].loaded.output:
        wanted = [{"name": field.name, "parameters": {"binary_data": True}}]
        head = json.dumps({**json.loads(body[:size]), "outputs": wanted}).encode()
        headers = {RAW: str(len(head)), "Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        answer = served.post("/v2/models/it/infer", data=gzip.compress(head + body[size:]), headers=headers)
        length = int(answer.headers[RAW])
        (output,) = json.loads(answer.content[:length])["outputs"]
        array = from_raw(output["name"], output["datatype"], output["shape"], memoryview(answer.content)[length:]).array
        found[output["name"]] = array.tolist()
    return found


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
    "packed records": by_packed_records,
    "packed arrow": by_packed_arrow,
    "oip, one output at a time": by_requested_outputs,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("rows", [1, ROWS])
def test_the_same_rows_give_the_same_numbers_through_every_door(example, door, rows):
    served, inputs, outputs = example
    check(DOORS[door](served, inputs.slice(0, rows)), outputs.slice(0, rows))


def check(answered, outputs):
    for field in outputs.schema:
        dtype = field.type.tensor_dtype_and_shape()[0]
        assert np.array_equal(np.array(answered[field.name], dtype), outputs[field.name]), field.name


@pytest.mark.parametrize("door", DOORS)
def test_a_client_that_repeats_itself_with_other_rows_gets_their_numbers(example, door):
    served, inputs, _ = example
    rows = [inputs.slice(row, row + 1) for row in range(ROWS)]
    engine = served.serving.pipelines[0].loaded
    outputs = [engine.infer(row).outputs for row in rows]  # each alone: several at once round otherwise
    for turn in range(20):
        check(DOORS[door](served, rows[turn % ROWS]), outputs[turn % ROWS])


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_narrow_floats_give_the_numbers_of_what_they_hold(example, datatype):
    served, inputs, _ = example
    tensors, held = [], {}
    for field in inputs.schema:
        wide = inputs[field.name]
        narrow = wide.astype(np.float16) if datatype == "FP16" else (wide.view(np.uint32) & 0xFFFF0000).view(np.float32)
        tensors.append(Tensor(field.name, datatype, narrow))
        held[field.name] = narrow.astype(np.float32)
    outputs = served.serving.pipelines[0].loaded.infer(Columns(inputs.schema, held, inputs.rows)).outputs
    body, size = encode_request(tensors, raw=True)
    assert len(body) - size == sum(len(to_raw(each)) for each in tensors) == sum(a.nbytes for a in held.values()) // 2
    answer = served.post("/v2/models/it/infer", data=body, headers={RAW: str(size)}).json()
    check({each["name"]: np.reshape(each["data"], each["shape"]).tolist() for each in answer["outputs"]}, outputs)


def test_the_log_has_the_same_numbers_for_each_of_them(example):
    served, inputs, outputs = example
    before = len(served.post("/logs").json())
    for door in DOORS.values():
        door(served, inputs.slice(0, 1))
    logged = served.post("/logs").json()[before:]
    assert len(logged) == len(DOORS) + len(outputs.schema.names) - 1  # one of them asks for each output
    name = outputs.schema.names[-1]
    wanted = np.ravel(outputs[name][:1]).astype(np.float32)
    for row in logged:
        assert np.array_equal(np.ravel(np.array(row["out"][name], np.float32)), wanted)


@pytest.mark.parametrize("example", ["digits-camera"], indirect=True)
def test_the_examples_own_script_asks_every_door_and_gets_one_answer(example):
    served, _, outputs = example
    script = EXAMPLES / "digits-camera" / "ask.py"
    done = subprocess.run([sys.executable, str(script), served.url], capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines()]
    assert len(lines) == 9
    assert {(digit, chance) for _, digit, chance in lines} == {
        (str(outputs["digit"][0]), f"{outputs['probabilities'][0].max():.7f}")
    }
