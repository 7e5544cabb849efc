"""Other vendors' real clients against a real agent's server, each in an environment of its own.

Run by `make test-clients`; the environments are downloaded once and kept in the user's cache.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from bundle.pipeline import LogPolicy
from edge_agent.serving import ActivePipeline
from edge_agent.spool import Spool
from runtimes.pipeline import LoadedPipeline
from tests.clients.environments import run_client
from tests.edge_agent.served import ARROW, VERSION, Front, Served
from tests.edge_agent.test_oip import ELEMENTS, identity, kind
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


def add_split(served):
    """`split`: two equal models and a shadow."""
    models = {f"{name}.onnx": linear(factor=2.0) for name in ("a", "b", "c")}
    steps = [routed(["a", "b", "c"], {"a": 1, "b": 1}, ["c"])]
    folder = bundle_folder(
        served.root / "split", models, steps, b'[{"in.x": [1, 2, 3]}]', name="split", validations=HIGH
    )
    served.spools["split"] = spool = Spool(served.root / "spool" / "split", LogPolicy(), "line-4")
    loaded = LoadedPipeline.open(folder)
    served.serving.switch("split", ActivePipeline("split", VERSION, f"sha256:{folder.name}", loaded, spool, "line-4"))


def test_tritonclient_asks_everything_of_the_open_inference_protocol(served):
    for datatype in ELEMENTS:
        sides = {side: {name: f"list<{kind(datatype)}>[2]"} for side, name in (("input", "x"), ("output", "y"))}
        served.add(datatype.lower(), model=identity(datatype, ["n", 2]), golden=b"[]", step=sides)
    said = run_client("triton", "use_triton.py", served.url.removeprefix("http://"), VERSION)
    assert "unknown field 'z'" in said
    assert "has shape [2, 2], expected [-1, 3]" in said


def test_kserves_client_passes_with_both_protocols(served):
    run_client("kserve", "use_kserve.py", served.url)


def test_wallaroos_sdk_infers_in_all_of_its_ways(served, tmp_path):
    add_split(served)
    run_client("wallaroo", "use_wallaroo.py", served.url, str(tmp_path))


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
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=30, check=True)
    assert check(json.loads(done.stdout)), done.stdout


def test_arrow_is_the_answer_where_a_curl_line_accepts_it(served, tmp_path):
    (tmp_path / "rows.arrow").write_bytes(arrow_file([{"x": [1.0, 2.0, 3.0]}]))
    line = f'curl -s {served.url}/infer -H "Content-Type: {ARROW}" -H "Accept: {ARROW}" --data-binary @rows.arrow'
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=30, check=True)
    assert done.stdout.startswith(b"ARROW1")
