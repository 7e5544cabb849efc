"""Bytes to a step without schema and back: a real worker behind every door that takes them."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from bundle.bundle import bundles
from bundle.pipeline import LogPolicy, WorkerSpec
from bundle.store import unpack
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from runtimes.environment import this_python
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import VERSION, Front, Served
from tests.runtimes.environments import numpy_environment
from tests.runtimes.python_steps import index, python_step

OCTETS, CUSTOM = "application/octet-stream", "application/json; format=wallaroo"
# bytes come back reversed, a JSON number of them as bytes, anything else with what it is
STEP = b"""\
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    value = input_data["json"][0]
    if isinstance(value, bytes):
        return {"json": [value[::-1]] if len(value) != 3 else {"three": len(value)}}
    return {"json": bytes(range(value)) if isinstance(value, int) else {"given": value}}
"""
GOLDEN = b'[{"in.json": "a", "out.json": {"given": "a"}}]'


@pytest.fixture(scope="module", params=[1, 2], ids=["one-step", "two-steps"])
def loaded(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("bytes")
    schema = {"json": "string"}
    spec = WorkerSpec("step", this_python(), ("numpy",), {"json": True})
    names = ["first", "second"][: request.param]
    steps = [python_step(name, input=schema, output=schema, worker=spec) for name in names]
    echo = STEP if request.param == 1 else STEP.replace(b"[::-1]", b"")
    sources = {"models/first/step.py": STEP, "models/second/step.py": echo}
    files = {path: data for path, data in sources.items() if path.split("/")[1] in names}
    found = bundles(index(folder, files, steps, GOLDEN))[0]
    pipeline = LoadedPipeline.open(unpack(found, folder / "bundles"), numpy_environment().parent)
    yield pipeline
    pipeline.close()


@pytest.fixture
def served(tmp_path, loaded):
    with Served(tmp_path, Front()) as served:
        served.spools["demo"] = spool = Spool(tmp_path / "spool", LogPolicy(max_value_bytes=1000), "line-4")
        active = ActivePipeline("demo", VERSION, "sha256:0", loaded, spool, "line-4")
        served.serving.switch("demo", active)
        yield served
        served.serving._slots.clear()  # the pipeline is the module's


def ask(served, path, data, kind=OCTETS):
    return served.post(path, data=data, headers={"Content-Type": kind})


@pytest.mark.parametrize("path", ["/predict", "/infer", "/pipelines/demo"])
def test_bytes_reach_the_step_and_its_bytes_come_back(served, path):
    given = b"\x89PNG\0\xff" * 20
    answer = ask(served, path, given)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, OCTETS)
    assert answer.content == given[::-1]
    (row,) = served.post("/logs").json()
    assert base64.b64decode(row["in"]["json"]) == given
    assert base64.b64decode(row["out"]["json"]) == given[::-1]


def test_large_bytes_are_in_the_log_by_their_digest(served):
    given = bytes(range(256)) * 4000
    assert ask(served, "/predict", given).content == given[::-1]
    (row,) = served.post("/logs").json()
    assert row["in"]["json"] == {"sha256": hashlib.sha256(given).hexdigest(), "bytes": len(given)}
    assert row["out"]["json"] == {"sha256": hashlib.sha256(given[::-1]).hexdigest(), "bytes": len(given)}


def test_json_still_gets_json_and_either_may_be_answered_by_the_other(served, loaded):
    two = len(loaded.spec.steps) == 2
    assert ask(served, "/predict", b'"a"', "application/json").json() == {
        "prediction": {"given": {"given": "a"}} if two else {"given": "a"}
    }
    answer = ask(served, "/infer", b"5", CUSTOM)
    assert (answer.headers["Content-Type"], answer.content) == (OCTETS, b"\0\1\2\3\4")
    answer = ask(served, "/infer", b"xyz")
    assert answer.json() == ({"given": {"three": 3}} if two else {"three": 3})
    assert [type(row["out"]["json"]) for row in served.post("/logs").json()] == [str, str, str]
    assert json.loads(served.post("/logs").json()[2]["out"]["json"]) == answer.json()
