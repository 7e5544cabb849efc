"""A device that serves a python step: the real agent, real workers, over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading

import pytest
import requests

from bundle.bundle import bundles
from bundle.store import OpenBundle
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.folders import Folders
from edge_agent.telemetry.metrics import Metrics
from edgepack.errors import RuntimeFailed
from oci.layout import write_layout
from runtimes.environment import environment_names
from tests.edge_agent.served import JSON, Front, until
from tests.runtimes.environments import numpy_environment
from tests.runtimes.python_steps import HELD_UP, SOURCE, held_up, index, python_step

ROWS = [{"x": [1, 2, 3]}, {"x": [0, 0, 1]}]


DOUBLING = SOURCE.replace("FACTOR", "2.0")


def layout(folder, source=DOUBLING, **how):
    made = index(folder, {"models/prepare/step.py": source.encode()}, [python_step()], **how)
    write_layout(made, folder / "layout")
    return folder / "layout"


@pytest.fixture
def data(tmp_path):
    """A data folder in which the environment of numpy alone is there already, as from a bundle before."""
    folders = Folders(tmp_path / "data").make()
    site = numpy_environment()
    shutil.copytree(site, folders.environments / site.name, copy_function=os.link)
    return folders.root


@contextlib.contextmanager
def running(data, *layouts, hot=True):
    with Agent.open(Config(data=data)) as agent:
        agent.begin(layouts, strict=True)
        with Front(hot).server(agent.serving) as server, requests.Session() as http:
            yield (
                agent,
                lambda rows=ROWS: http.post(
                    f"{server.url}/infer", json.dumps(rows), headers={"Content-Type": JSON}, timeout=60
                ),
            )


def worker_of(agent):
    return agent.serving.pipelines[0].loaded.workers[0]


def answers(answer):
    return [row["out"]["y"] for row in answer.json()]


@pytest.mark.parametrize("hot", [True, False])
def test_a_python_step_is_activated_after_its_golden_rows_and_answers(data, tmp_path, hot):
    with running(data, layout(tmp_path), hot=hot) as (agent, ask):
        answer = ask()
        assert (answer.status_code, answers(answer)) == (200, [12.0, 2.0])
        with agent.serving.lease(None) as active:
            assert sum(rows.rows for rows in active.spool.rows()) == 2


def test_after_a_kill_the_next_request_is_told_to_come_back_and_later_ones_are_answered(data, tmp_path):
    with running(data, layout(tmp_path, HELD_UP + DOUBLING)) as (agent, ask):
        assert ask().status_code == 200
        with held_up(worker_of(agent).job.model):
            os.kill(worker_of(agent).pid, signal.SIGKILL)
            refused = ask()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert "step 'prepare' was stopped: it ended by signal SIGKILL" in refused.json()["error"]
        until(lambda: ask().status_code != 503, "it is back")
        answer = ask()
        assert (answer.status_code, answers(answer)) == (200, [12.0, 2.0])
        assert worker_of(agent).restarts == 1


def test_a_worker_killed_again_and_again_under_load_gives_200_and_503_and_nothing_else(data, tmp_path):
    with running(data, layout(tmp_path)) as (agent, ask):
        seen: list[int] = []
        stop = threading.Event()

        def load():
            while not stop.is_set():
                seen.append(ask().status_code)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            enough = seen.count(200) + 10
            until(lambda enough=enough: seen.count(200) > enough or set(seen) - {200, 503}, "it answers again")
            with contextlib.suppress(TypeError, ProcessLookupError):
                os.kill(worker_of(agent).pid, signal.SIGKILL)
        until(lambda: 503 in seen, "who asks in between is told so")
        stop.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {200, 503}


def test_what_the_step_does_not_take_is_the_clients_fault(data, tmp_path):
    source = SOURCE.replace("FACTOR", "[1, 2][int(input_data['x'][0, 0] > 9):][0] * 2.0").replace(
        "    return", "    if input_data['x'][0, 0] > 99:\n        raise ValueError('too\\nlarge')\n    return"
    )
    golden = b'[{"in.x": [1, 2, 3], "out.y": 12.0}]'
    with running(data, layout(tmp_path, source, golden=golden)) as (_, ask):
        refused = ask([{"x": [100, 0, 0]}])
        assert (refused.status_code, refused.json()["error"]) == (422, "step 'prepare': ValueError: too large")
        assert ask([{"x": "word"}]).status_code == 400
        assert ask().status_code == 200


def test_a_step_that_answers_wrongly_or_crashes_is_not_activated(data, tmp_path):
    wrong = layout(tmp_path / "wrong", SOURCE.replace("FACTOR", "3.0"))
    crash = layout(tmp_path / "crash", "import os; os._exit(1)\n" + SOURCE)
    for folder, reason in ((wrong, "answers wrongly on this machine"), (crash, "ended with exit code 1")):
        with pytest.raises(RuntimeFailed, match=reason), running(data, folder):
            pass


def test_it_serves_again_after_a_restart_also_when_its_environment_is_lost(data, tmp_path):
    with running(data, layout(tmp_path)) as (_, ask):
        assert ask().status_code == 200
    folders = Folders(data)
    with running(data) as (_, ask):
        assert ask().status_code == 200
    shutil.rmtree(folders.environments)
    with running(data) as (_, ask):
        assert ask().status_code == 200
    assert len([path for path in folders.environments.iterdir() if path.name != ".scratch"]) == 1
    assert list((folders.environments / ".scratch").iterdir()) == []


def test_environments_stay_as_long_as_a_bundle_needs_them(data, tmp_path):
    folders = Folders(data)
    unused = folders.environments / ("0" * 64)
    unused.mkdir(parents=True)
    with running(data, layout(tmp_path)) as (agent, _):
        opened = OpenBundle(folders.bundle(agent.serving.pipelines[0].manifest))
        assert not unused.exists()
        assert (folders.environments / environment_names(opened)[0]).is_dir()
        agent._activator.remove("demo")
        agent._activator.collect()
    assert [path.name for path in folders.environments.iterdir()] == [".scratch"]


def test_metrics_tell_how_confined_each_worker_is_and_what_it_takes(data, tmp_path):
    with running(data, layout(tmp_path)) as (agent, ask):
        ask()
        text = Metrics().render(agent.serving)
        labels = f'pipeline="demo",step="prepare",replica="0",sandbox="{worker_of(agent).sandbox}"'
        assert f"edgepack_worker_up{{{labels}}} 1" in text
        assert f"edgepack_worker_restarts_total{{{labels}}} 0" in text
        assert float(text.split(f"edgepack_worker_pss_bytes{{{labels}}} ")[1].split()[0]) > 1 << 20


def test_removing_a_pipeline_ends_its_worker(data, tmp_path):
    with running(data, layout(tmp_path)) as (agent, _):
        pid = worker_of(agent).pid
        agent.serving.remove("demo")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_bundle_of_a_target_carries_its_own_wheels(tmp_path):
    found = bundles(index(tmp_path, {"models/prepare/step.py": b""}, [python_step()]))[0]
    wheels = [path for path in found.blobs if path.startswith("wheels/prepare/numpy-")]
    assert len(wheels) == 1
    assert found.blobs[wheels[0]].descriptor.media_type == "application/vnd.edgepack.wheel.v1+zip"
