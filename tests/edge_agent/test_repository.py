"""What whoever runs an agent decides: whether clients load and unload, and which sandbox users' code must have."""

from __future__ import annotations

import contextlib
import json
import os

import pytest
import requests
from click.testing import CliRunner

from bundle.pipeline import Resources
from edge_agent.agent import Agent
from edge_agent.commands.status import command as status
from edge_agent.config import Config
from edge_agent.status import read_status
from edgepack.errors import BadInput
from oci.layout import write_layout
from runtimes.sandbox import level_of_this_kernel
from tests.edge_agent.served import Front, until
from tests.edge_agent.test_python_step import data, layout
from tests.runtimes.models import linear, step
from tests.runtimes.python_steps import index

__all__ = ["data"]  # the fixture
X = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}


def native_layout(folder, **spec):
    golden = b'[{"in.x": [1, 2, 3], "out.y": [12.0]}]'
    write_layout(index(folder, {"linear.onnx": linear()}, [step()], golden, **spec), folder / "layout")
    return folder / "layout"


@contextlib.contextmanager
def agent_on(data, *layouts, hot=True, **config):
    with Agent.open(Config(data=data, **config)) as agent:
        agent.begin(layouts, strict=True)
        with Front(hot).server(agent.serving) as server:
            yield agent, server.url


def post(url, path, **body):
    return requests.post(url + path, json=body, timeout=60)


@pytest.mark.parametrize("hot", [True, False])
def test_an_unloaded_pipeline_answers_again_after_it_is_loaded(data, tmp_path, hot):
    with agent_on(data, native_layout(tmp_path), hot=hot, model_control="explicit") as (_, url):
        assert post(url, "/v2/models/demo/infer", **X).json()["outputs"][0]["data"] == [12.0]
        assert post(url, "/v2/repository/models/demo/unload").status_code == 200
        refused = post(url, "/v2/models/demo/infer", **X)
        assert refused.status_code == 503
        assert "was unloaded" in refused.json()["error"]
        assert requests.get(url + "/v2/models/demo/ready", timeout=60).status_code == 503
        assert requests.get(url + "/v2/health/ready", timeout=60).status_code == 200
        assert post(url, "/v2/repository/index").json() == [
            {"name": "demo", "state": "UNAVAILABLE", "reason": "unloaded"}
        ]
        assert post(url, "/v2/repository/index", ready=True).json() == []
        assert post(url, "/v2/repository/models/demo/load").status_code == 200
        assert post(url, "/v2/models/demo/infer", **X).json()["outputs"][0]["data"] == [12.0]
        assert len(requests.post(url + "/logs", timeout=60).json()) == 2


def test_unloading_frees_the_processes_of_a_pipeline(data, tmp_path):
    with agent_on(data, native_layout(tmp_path, resources=Resources(replicas=2)), model_control="explicit") as (
        agent, url,
    ):  # fmt: skip
        pids = [worker.pid for worker in agent.serving.pipelines[0].loaded.workers]
        assert post(url, "/v2/repository/models/demo/unload").status_code == 200
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_a_pipeline_that_a_client_unloaded_is_not_activated_again_by_itself(data, tmp_path):
    with agent_on(data, native_layout(tmp_path), model_control="explicit") as (agent, url):
        before = agent._stage.serving()
        post(url, "/v2/repository/models/demo/unload")
        assert agent._stage.serving() == before
        assert agent.serving.names == []
    with agent_on(data) as (agent, _):
        assert agent.serving.names == ["demo"]  # the agent started again


def test_what_no_client_may_load_or_unload_is_refused_by_its_setting(data, tmp_path):
    with agent_on(data, native_layout(tmp_path)) as (_, url):
        refused = post(url, "/v2/repository/models/demo/unload")
        assert refused.status_code == 403
        assert "EDGEPACK_MODEL_CONTROL=explicit" in refused.json()["error"]
        assert post(url, "/v2/repository/models/demo/load").status_code == 200
        for verb in ("load", "unload"):
            assert post(url, f"/v2/repository/models/other/{verb}").status_code == 404


def test_a_setting_that_is_none_is_refused_with_those_there_are():
    settings = {"EDGEPACK_MODEL_CONTROL": "none or explicit", "EDGEPACK_SANDBOX": "best or required"}
    for variable, expected in settings.items():
        with pytest.raises(BadInput, match=f"{variable} is 'all': expected {expected}"):
            Config.read({variable: "all"})


def test_the_configuration_and_statistics_of_a_model_are_those_of_triton(data, tmp_path):
    with agent_on(data, native_layout(tmp_path)) as (_, url):
        assert requests.get(url + "/v2/models/demo/config", timeout=60).json() == {
            "name": "demo",
            "platform": "onnx_onnxv1",
            "backend": "onnx",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 0,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 1]}],
            "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        }
        for shape in ([1, 3], [3, 1]):
            post(url, "/v2/models/demo/infer", inputs=[{**X["inputs"][0], "shape": shape}])
        (counted,) = requests.get(url + "/v2/models/stats", timeout=60).json()["model_stats"]
        stats = counted["inference_stats"]
        assert (counted["inference_count"], counted["execution_count"], stats["fail"]["count"]) == (1, 1, 1)
        assert 0 < stats["compute_infer"]["ns"] < stats["success"]["ns"]
        assert requests.get(url + "/v2/models/other/stats", timeout=60).status_code == 404


# Sandboxes


@pytest.mark.parametrize(("level", "missing"), [("rlimits", "landlock and seccomp"), ("seccomp+rlimits", "landlock")])
def test_where_a_sandbox_is_required_a_kernel_without_it_refuses_python_steps_before_they_run(
    data, tmp_path, level, missing
):
    folder = layout(tmp_path, "raise ValueError('it ran')\n")
    with Agent.open(Config(data=data, sandbox="required"), sandbox=level) as agent:
        with pytest.raises(BadInput, match=rf"python steps \('prepare'\) need {missing}, which this kernel lacks"):
            agent.begin([folder], strict=True)
        assert agent.serving.names == []


def test_what_serves_already_is_not_restored_where_a_sandbox_has_become_required(data, tmp_path):
    with agent_on(data, layout(tmp_path)) as (agent, _):
        assert agent.serving.names == ["demo"]
    with Agent.open(Config(data=data, sandbox="required"), sandbox="rlimits") as agent:
        agent.begin()
        assert agent.serving.names == []


def test_native_pipelines_run_on_any_kernel_and_python_steps_on_one_that_has_all(data, tmp_path):
    with Agent.open(Config(data=data, sandbox="required"), sandbox="rlimits") as agent:
        agent.begin([native_layout(tmp_path / "native")], strict=True)
        assert agent.serving.names == ["demo"]
    level = level_of_this_kernel()
    if "landlock" not in level or "seccomp" not in level:
        pytest.skip(f"this kernel has {level} only")
    with Agent.open(Config(data=data, sandbox="required")) as agent:
        agent.begin([layout(tmp_path / "python", name="other")], strict=True)
        assert agent.serving.names == ["demo", "other"]


def test_status_says_how_confined_each_python_step_is(data, tmp_path):
    with agent_on(data, layout(tmp_path)) as (agent, _):
        agent.start()
        until(lambda: read_status(data).pipelines, "the agent says what it serves")
        told = CliRunner().invoke(status, ["--data", str(data)]).output
        said = json.loads(CliRunner().invoke(status, ["--data", str(data), "--json"]).output)
        level = agent.serving.pipelines[0].loaded.workers[0].sandbox
        assert f"sandbox     {level_of_this_kernel()} (best)" in told
        assert f"step prepare in sandbox {level}" in told
        assert (said["sandbox"], said["sandbox_policy"]) == (level_of_this_kernel(), "best")
        assert said["pipelines"][0]["sandbox"] == {"prepare": level}
