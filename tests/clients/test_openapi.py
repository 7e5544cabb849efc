"""The OpenAPI documents, held against the servers they describe by schemathesis, with what fits them and what does not.

Nothing but documented statuses and media types comes back, every answer is of its schema, and no 5xx is undocumented.
"""

from __future__ import annotations

import pytest

from edge_agent.link.enrol import bearer_of
from tests.clients.environments import run_client
from tests.edge_agent.real_hub import enrolled_folder, make_bundle, running_hub
from tests.faults.device import Device
from tests.faults.ordeal import Ordeal

EXAMPLES = "5"  # of an operation, beside those that cover each of its parameters

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]


def test_the_agent_answers_as_its_document_says(tmp_path):
    with Device.of_all_doors(tmp_path, tmp_path / "agent.log") as agent:
        run_client("schemathesis", "use_schemathesis.py", f"http://127.0.0.1:{agent.port()}/openapi.json", EXAMPLES)
        with Ordeal(agent, seed=0) as ordeal:
            ordeal.run(range(0))  # every right request still gets its right answer


@pytest.mark.parametrize("who", ["admin", "device", "nobody"])
def test_the_hub_answers_as_its_document_says(tmp_path, who):
    with running_hub(tmp_path / "hub") as hub:
        hub.publish(make_bundle(tmp_path / "bundle"))
        folders, enrolled = enrolled_folder(hub, tmp_path / "device")
        tokens = {"admin": [hub._admin], "device": [bearer_of(folders.identity, enrolled)], "nobody": []}
        run_client("schemathesis", "use_schemathesis.py", f"{hub.url}/api/v1/openapi.json", EXAMPLES, *tokens[who])
        assert hub.token()  # and it goes on
