"""A container that does not answer, beside pipelines that do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from bundle.pipeline import LogPolicy, address_variable
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from runtimes import container
from runtimes.pipeline import LoadedPipeline
from runtimes.protocol import CONTAINER_REQUESTS
from tests.edge_agent.served import JSON, VERSION, Front, Served, until
from tests.runtimes.models import bundle_folder
from tests.runtimes.scoring import Asked, new, scoring
from tests.runtimes.test_container import step


def add_container(served: Served, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve `adder`, whose one step is the container at that address."""
    monkeypatch.setenv(address_variable("sum"), url)
    folder = bundle_folder(
        served.root / "adder", {step().model: b"an image"}, [step()], b'[{"a": 1, "b": 2}]', name="adder"
    )
    spool = served.spools["adder"] = Spool(served.root / "spool" / "adder", LogPolicy(), "line-4")
    loaded = LoadedPipeline.open(folder)
    served.serving.switch("adder", ActivePipeline("adder", VERSION, f"sha256:{folder.name}", loaded, spool, "line-4"))


def test_a_silent_container_holds_up_no_other_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wakes = threading.Event()
    monkeypatch.setattr(container, "_TURN_S", 0.05)

    def sleepy(asked: Asked) -> None:
        assert wakes.wait(60)
        new(asked)

    with scoring(sleepy) as (url, log), Served(tmp_path, Front()) as served, ThreadPoolExecutor() as pool:
        served.add("demo")
        add_container(served, url, monkeypatch)

        def ask() -> requests.Response:
            body, headers = b'[{"a": 1.5, "b": 2}]', {"Content-Type": JSON}
            return requests.post(f"{served.url}/pipelines/adder", data=body, headers=headers, timeout=60)

        asked = [pool.submit(ask) for _ in range(CONTAINER_REQUESTS + 4)]
        rows = [{"x": [1, 2, 3]}] * 4_000  # too many for the serving thread
        try:
            until(lambda: sum(each.done() for each in asked) == 4, "those beyond what it is asked at once are refused")
            assert len(log) == CONTAINER_REQUESTS
            assert len(served.post("/pipelines/demo", rows).json()) == 4_000
        finally:
            wakes.set()
        answers = [each.result() for each in asked]
    assert sorted(each.status_code for each in answers) == [200] * CONTAINER_REQUESTS + [503] * 4
    refused = [each.json()["error"] for each in answers if each.status_code == 503]
    assert all(each.startswith("the container of step 'sum' has not answered 4 requests yet") for each in refused)
