"""A device that serves a pipeline with replicas: the real agent, several processes behind one port."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
from collections import Counter

import pytest

from bundle.pipeline import Resources
from edge_agent.telemetry.metrics import Metrics
from tests.edge_agent.served import Front, Served, until
from tests.edge_agent.test_python_step import answers, data, layout, running
from tests.runtimes.python_steps import HELD_UP, SOURCE, held_up

__all__ = ["data"]  # the fixture
TWO = Resources(replicas=2)
SLOW = SOURCE.replace("FACTOR", "2.0").replace("import numpy as np", "import time\nimport numpy as np").replace(
    "    return", "    time.sleep(0.02)\n    return"
)  # fmt: skip


def test_a_replica_that_is_killed_under_load_costs_its_own_requests_alone(data, tmp_path):
    with running(data, layout(tmp_path, SLOW, resources=TWO)) as (agent, ask):
        one, other = agent.serving.pipelines[0].loaded.workers
        seen: list[tuple[int, str]] = []
        stop = threading.Event()

        def load():
            while not stop.is_set():
                answer = ask()
                seen.append((answer.status_code, answer.json()["error"] if answer.status_code != 200 else ""))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(seen) > 10, "requests are on their way")
        os.kill(one.pid, signal.SIGKILL)
        until(lambda: one.restarts and one.pid is not None, "it is back")
        stop.set()
        for thread in threads:
            thread.join()
        assert answers(ask()) == [12.0, 2.0]
    counts = Counter(status for status, _ in seen)
    assert counts[503] <= 1
    assert set(counts) <= {200, 503}
    assert all("'prepare' was stopped: it ended by signal SIGKILL" in reason for _, reason in seen if reason)
    assert other.restarts == 0


def test_every_replica_is_in_the_figures(data, tmp_path):
    with running(data, layout(tmp_path, resources=TWO)) as (agent, ask):
        assert ask().status_code == 200
        text = Metrics().render(agent.serving)
        for number in "01":
            for figure in ("up", "restarts_total", "pss_bytes"):
                assert f'edgepack_worker_{figure}{{pipeline="demo",step="prepare",replica="{number}",sandbox=' in text


@pytest.mark.parametrize("hot", [True, False])
def test_a_native_pipeline_with_replicas_answers_through_every_kind_of_door(tmp_path, hot):
    with Served(tmp_path, Front(hot)) as served:
        active = served.add(resources=TWO)
        assert len({worker.pid for worker in active.loaded.workers}) == 2
        for _ in range(3):
            assert [row["out"]["y"] for row in served.post(rows=[{"x": [1, 2, 3]}]).json()] == [[12.0]]
        tensors = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 0, 0, 1]}]}
        answer = served.post("/v2/models/demo/infer", json=tensors).json()
        assert answer["outputs"][0]["data"] == [12.0, 2.0]
        refused = served.post("/v2/models/demo/infer", json={"inputs": [{**tensors["inputs"][0], "shape": [3, 2]}]})
        assert refused.status_code == 400
        assert len(served.post("/logs").json()) == 4


def test_as_many_requests_run_at_once_as_there_are_replicas(data, tmp_path):
    waiting = SOURCE.replace("FACTOR", "2.0").replace("    return", textwrap.indent(HELD_UP, "    ") + "    return")
    with running(data, layout(tmp_path, waiting, resources=Resources(replicas=3))) as (agent, ask):
        assert agent.serving.wanted_threads == 4
        replicas = agent.serving.pipelines[0].loaded._steps[0].replicas
        threads = [threading.Thread(target=ask) for _ in range(3)]
        with held_up(replicas.job.model):
            for thread in threads:
                thread.start()
            until(lambda: not replicas._free, "all three are at work")
        for thread in threads:
            thread.join()
