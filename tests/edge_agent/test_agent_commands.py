"""`edgepack-agent` as a program: exit codes, one line for an error, a clean end on signals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3

from oci.layout import write_layout
from tests.edge_agent.real_hub import make_bundle

ROOT = Path(__file__).resolve().parents[2]
START = [sys.executable, "-c", "from edgepack.launch import agent; agent()"]


def environment(**more):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EDGEPACK_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def call(*arguments, **more):
    command = [*START, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**more), timeout=60)


@pytest.fixture
def layout(tmp_path):
    write_layout(make_bundle(tmp_path / "b"), tmp_path / "layout")
    return tmp_path / "layout"


class Running:
    """An agent as a child process; `url` is what it printed."""

    def __init__(self, *arguments, **more):
        command = [*START, "run", "--port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more)
        )
        self.said = self.process.stdout.readline().strip()
        self.url = self.said.rpartition(" ")[2]

    def end(self, number):
        self.process.send_signal(number)
        _, self.errors = self.process.communicate(timeout=60)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def ask(url, body=b'[{"x": [1, 2, 3]}]'):
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        answer = pool.request("POST", f"{url}/infer", body=body, headers={"Content-Type": "application/json"})
        return answer.status, json.loads(answer.data)


def test_run_serves_a_bundle_folder_without_a_hub_and_ends_cleanly(layout, tmp_path):
    with Running("--bundle", layout, "--data", tmp_path / "data") as agent:
        assert agent.said.startswith("serving demo on http://127.0.0.1:")
        status, rows = ask(agent.url)
        assert (status, rows[0]["out"]["y"]) == (200, [12.0])
        said = json.loads(call("status", "--data", tmp_path / "data", "--json").stdout)
        assert (said["running"], said["device"], said["url"]) == (True, None, agent.url)
        assert [(each["name"], each["state"]) for each in said["pipelines"]] == [("demo", "active")]
        assert agent.end(signal.SIGTERM) == 0
        assert "Traceback" not in agent.errors
    again = call("status", "--data", tmp_path / "data")
    assert again.returncode == 0
    assert "does not run" in again.stdout


def test_ctrl_c_ends_with_130(tmp_path):
    with Running("--data", tmp_path / "data") as agent:
        assert agent.end(signal.SIGINT) == 130
        assert "Traceback" not in agent.errors


def test_after_a_kill_the_next_start_serves_at_once(layout, tmp_path):
    with Running("--bundle", layout, "--data", tmp_path / "data") as agent:
        ask(agent.url)
        agent.process.kill()
        agent.process.wait()
    begun = time.monotonic()
    with Running("--bundle", layout, "--data", tmp_path / "data") as agent:
        assert ask(agent.url)[0] == 200
        print(f"start to first answer after a kill: {time.monotonic() - begun:.2f} s")


def test_kills_in_the_middle_of_deployments_never_leave_half_a_version(hub, tmp_path):
    """Whenever the agent answers, one of the two versions did; in the end the last that was assigned."""
    data, dice = tmp_path / "data", random.Random(11)
    versions = [make_bundle(tmp_path / "b", factor=factor, padding=1 << 20) for factor in (1.0, 2.0)]
    for index in versions:
        hub.publish(index)
    call("enrol", "--hub", hub.url, "--token", hub.token(), "--name", "killed-1", "--data", data)
    me = json.loads(call("status", "--data", data, "--json").stdout)["device"]
    seen = []
    for number in range(4):
        hub.assign(me, demo=versions[number % 2].digest)
        with Running("--data", data) as agent:
            time.sleep(dice.uniform(0.1, 1.2))
            status, answer = ask(agent.url)
            seen.append(answer[0]["out"]["y"][0] if status == 200 else status)
            agent.process.kill()
    hub.assign(me, demo=versions[1].digest)
    with Running("--data", data) as agent:
        deadline = time.monotonic() + 60
        while (found := ask(agent.url)) and (found[0] != 200 or found[1][0]["out"]["y"] != [12.0]):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        assert agent.end(signal.SIGTERM) == 0
    assert set(seen) <= {6.0, 12.0, 503}


def one_line(done, code):
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_enrol_says_who_the_device_is_and_repeats_harmlessly(hub, tmp_path):
    data = tmp_path / "data"
    first = call("enrol", "--hub", hub.url, "--token", hub.token(), "--name", "line-1", "--data", data)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("device 'line-1' (dev_")
    again = call("enrol", "--hub", hub.url, "--token", "any", "--data", data, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["already"] is True
    renamed = call("enrol", "--hub", hub.url, "--token", "any", "--name", "line-2", "--data", data)
    assert "this device is 'line-1'" in one_line(renamed, 2)
    other = call("enrol", "--hub", "http://127.0.0.1:1", "--token", "any", "--data", data)
    assert "--force" in one_line(other, 2)


def test_enrolling_with_a_wrong_token_or_without_a_hub_is_one_line(hub, tmp_path):
    data = tmp_path / "data"
    assert "token" in one_line(call("enrol", "--hub", hub.url, "--token", "wrong", "--data", data), 2)
    assert not data.exists()
    away = call("enrol", "--hub", "http://127.0.0.1:9", "--token", "x", "--data", data)
    assert "did not answer" in one_line(away, 1)
    plain = call("enrol", "--hub", "http://hub.example", "--token", "x", "--data", data)
    assert "no TLS" in one_line(plain, 2)
    assert "--token is missing" in one_line(call("enrol", "--hub", hub.url, "--data", data), 2)


def test_hub_and_token_are_taken_from_the_environment(hub, tmp_path):
    admin = call("enrol", "--data", tmp_path, EDGEPACK_HUB=hub.url, EDGEPACK_TOKEN="epa_x")
    assert "--token is missing" in one_line(admin, 2)  # that variable is an operator's, for `edgepack`
    done = call(
        "enrol", "--data", tmp_path, EDGEPACK_HUB=hub.url, EDGEPACK_JOIN_TOKEN=hub.token(), EDGEPACK_NAME="line-2"
    )
    assert done.returncode == 0, done.stderr
    assert "line-2" in done.stdout


def test_a_busy_port_a_used_folder_and_one_that_cannot_be_written_are_one_line(layout, tmp_path):
    with Running("--data", tmp_path / "data") as agent:
        port = agent.url.rpartition(":")[2]
        busy = call("run", "--data", tmp_path / "other", "--port", port)
        assert "in use by another program" in one_line(busy, 2)
        assert not (tmp_path / "other").exists()
        for at in ("0", port):  # who has the folder explains a busy port better
            used = call("run", "--data", tmp_path / "data", "--port", at)
            assert "in use by process" in one_line(used, 2)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in one_line(call("run", "--data", tmp_path / "file" / "data", "--port", "0"), 2)
    assert "is not an OCI layout" in one_line(
        call("run", "--bundle", tmp_path, "--data", tmp_path / "third", "--port", "0"), 2
    )
    assert "EDGEPACK_PORT" in one_line(call("run", "--data", tmp_path / "third", EDGEPACK_PORT="x"), 2)


def test_status_without_an_agent_is_one_line(tmp_path):
    assert "no agent has run" in one_line(call("status", "--data", tmp_path), 2)


@pytest.mark.parametrize("verb", ["run", "enrol", "status"])
def test_every_verb_shows_an_example(verb):
    shown = call(verb, "--help")
    assert shown.returncode == 0
    assert f"edgepack-agent {verb}" in shown.stdout
