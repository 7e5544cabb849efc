"""Other vendors' real clients against a real agent's server, each in an environment of its own.

Run by `make test-clients`; the environments are downloaded once and kept in the user's cache.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest

from bundle.pipeline import LogPolicy
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from runtimes.pipeline import LoadedPipeline
from tests.clients.environments import run_client
from tests.edge_agent.served import ARROW, VERSION, Front, Served
from tests.edge_agent.test_oip import ELEMENTS, identity, kind
from tests.edge_agent.test_predict import Echo
from tests.edge_agent.test_repository import native_layout
from tests.edge_agent.test_split import routed
from tests.edge_agent.test_wallaroo_sdk import arrow_file
from tests.runtimes.models import bundle_folder, linear

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
HIGH = {"high": "out.y[0] > 5"}


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path, Front()) as served:
        served.add(validations=HIGH)
        yield served


def add_routed(served, name, models, *routing):
    """A pipeline of several equal models in one step."""
    files = {f"{model}.onnx": linear(factor=2.0) for model in models}
    golden = b'[{"in.x": [1, 2, 3]}]'
    folder = bundle_folder(served.root / name, files, [routed(*routing)], golden, name=name, validations=HIGH)
    served.spools[name] = spool = Spool(served.root / "spool" / name, LogPolicy(), "line-4")
    loaded = LoadedPipeline.open(folder)
    served.serving.switch(name, ActivePipeline(name, VERSION, f"sha256:{folder.name}", loaded, spool, "line-4"))


def add_free(served):
    """`free`: a step without schema; it gives back the value it takes, in a list."""
    active = served.add("free")
    served.serving.switch("free", replace(active, loaded=LoadedPipeline(active.loaded.bundle, [Echo()])))


def test_tritonclient_asks_everything_of_the_open_inference_protocol(served):
    for datatype in ELEMENTS:
        sides = {side: {name: f"list<{kind(datatype)}>[2]"} for side, name in (("input", "x"), ("output", "y"))}
        served.add(datatype.lower(), model=identity(datatype, ["n", 2]), golden=b"[]", step=sides)
    said = run_client("triton", "use_triton.py", served.url.removeprefix("http://"), VERSION)
    assert "unknown field 'z'" in said
    assert "has shape [2, 2], expected [-1, 3]" in said


def test_tritonclient_loads_and_unloads_where_the_agent_is_told_that_clients_may(tmp_path):
    config = Config(data=tmp_path / "data", model_control="explicit")
    with Agent.open(config) as agent:
        agent.begin([native_layout(tmp_path)], strict=True)
        with Front().server(agent.serving) as server:
            run_client("triton", "use_triton_repository.py", server.url.removeprefix("http://"))


def test_kserves_client_passes_with_both_protocols(served):
    run_client("kserve", "use_kserve.py", served.url)


def test_wallaroos_sdk_infers_in_all_of_its_ways(served, tmp_path):
    add_routed(served, "split", "abc", ["a", "b", "c"], {"a": 1, "b": 1}, ["c"])
    add_routed(served, "shadow", ["main", "next"], ["next"], None, ["next"])
    add_free(served)
    run_client("wallaroo", "use_wallaroo.py", served.url, str(tmp_path))
    rows = served.post("/logs?pipeline=shadow").json()
    assert rows[0]["out_next"] == rows[0]["out"] == {"y": [12.0]}
    assert json.loads(served.post("/logs?pipeline=free").json()[0]["in"]["json"]) == {"any": [1, {"deep": None}]}


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ("curl {url}/pipelines", lambda found: found["pipelines"][0]["status"] == "Running"),
        ("curl {url}/models", lambda found: found["models"][0]["name"] == "linear"),
        (
            'curl -X POST {url}/pipelines/demo -H "Content-Type: Content-Type: application/json; format=pandas-records"'
            " --data @rows.df.json",
            lambda found: found[0]["out"] == {"y": [12.0]} and found[0]["anomaly"] == {"count": 1, "high": True},
        ),
        (
            'curl -X POST {url}/infer -H "Content-Type: application/vnd.apache.arrow.file" --data-binary @rows.arrow',
            lambda found: [row["out"]["y"] for row in found] == [[12.0], [1.0]],
        ),
        (
            'curl -X POST {url}/infer -H "Content-Type: Content-Type: application/vnd.apache.arrow.file"'
            " --data-binary @rows.arrow",
            lambda found: found[0]["metadata"]["dropped"] == [],
        ),
        (
            'curl -X POST {url}/logs -H "Content-Type: application/json; format=pandas-records" -d "{{}}"',
            lambda found: found == [],
        ),
    ],
)
def test_the_curl_lines_of_wallaroos_documentation_are_answered(served, tmp_path, line, check):
    """As published, the doubled header among them, with a port and files of our own."""
    rows = [{"x": [1.0, 2.0, 3.0]}, {"x": [0.5, 0.0, 0.0]}]
    (tmp_path / "rows.df.json").write_text(json.dumps(rows))
    (tmp_path / "rows.arrow").write_bytes(arrow_file(rows))
    command = line.format(url=served.url)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=300, check=True)
    assert check(json.loads(done.stdout)), done.stdout


def test_arrow_is_the_answer_where_a_curl_line_accepts_it(served, tmp_path):
    (tmp_path / "rows.arrow").write_bytes(arrow_file([{"x": [1.0, 2.0, 3.0]}]))
    line = f'curl -s {served.url}/infer -H "Content-Type: {ARROW}" -H "Accept: {ARROW}" --data-binary @rows.arrow'
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=300, check=True)
    assert done.stdout.startswith(b"ARROW1")
