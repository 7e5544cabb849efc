"""Rows that wait for shadow models: answers leave before, no row is lost or doubled, under load shadows go first."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests

from bundle.bundle import bundles
from bundle.pipeline import LogPolicy, RoutingSpec
from bundle.store import unpack
from columns.columns import Columns
from columns.schema import Schema
from columns.values import object_array
from edge_agent.inference_log import held
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edgepack.errors import Unreachable
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import VERSION, Front, Served
from tests.fakes.disk import MemoryDisk, Refusal
from tests.runtimes.environments import numpy_environment
from tests.runtimes.models import linear, step
from tests.runtimes.python_steps import SOURCE, index, python_step

GIVES = {"y": "list<float32>[1]"}
SHADOW = SOURCE.replace('.sum(axis=1) * FACTOR', '.sum(axis=1, keepdims=True) * 3').replace(
    "    return", "    time.sleep(SECONDS)\n    return"
).replace("import numpy", "import time\nimport numpy")  # fmt: skip
SCHEMA = Schema.parse({"time": "int64", "in.x": "float64", "out.y": "float64", "metadata.dropped": "list<string>"})


def add(served, seconds, policy=None):
    """Serve a native champion with a python shadow that takes its time."""
    shadow = python_step("next", output=GIVES)
    champion = step("linear", output=GIVES, routing=RoutingSpec({"next": shadow}, shadow=["next"]))
    source = SHADOW.replace("SECONDS", str(seconds)).encode()
    files = {"linear.onnx": linear(), "models/next/step.py": source}
    made = index(served.root / "made", files, [champion], b'[{"in.x": [1, 2, 3], "out.y": [12.0]}]')
    folder = unpack(bundles(made)[0], served.root / "bundles")
    loaded = LoadedPipeline.open(folder, numpy_environment().parent)
    served.spools["demo"] = spool = Spool(served.root / "spool" / "demo", policy or LogPolicy(), "line-4")
    served.serving.switch("demo", ActivePipeline("demo", VERSION, "sha256:0", loaded, spool, "line-4"))
    return spool


@pytest.mark.parametrize(("hot", "durability"), [(True, "commit"), (False, "relaxed")])
def test_an_answer_leaves_while_its_shadow_is_still_at_work(tmp_path, hot, durability):
    with Served(tmp_path, Front(hot)) as served:
        spool, go_on = add(served, 0.2, LogPolicy(durability)), threading.Event()
        loaded = served.serving.pipelines[0].loaded
        shadows = loaded.shadows
        loaded.shadows = lambda outcome: (go_on.wait(60), shadows(outcome))[1]
        answer = served.post(rows=[{"x": [1, 2, 3]}])
        assert spool.stats()["held"] == 1  # the shadow has not answered
        assert answer.json()[0]["out"] == {"y": [12.0]}
        go_on.set()
        (row,) = served.post("/logs").json()  # which waits for it
        assert (row["out"], row["out_next"]) == ({"y": [12.0]}, {"y": [18.0]})
        assert row["metadata"]["dropped"] == []
        assert spool.stats()["held"] == 0


def test_many_clients_at_once_are_all_answered_and_each_row_is_logged_once(tmp_path):
    with Served(tmp_path, Front()) as served:
        add(served, 0)

        def ask(client):
            with requests.Session() as http:
                rows = [[{"x": [client, at, 0]}] for at in range(40)]
                return [http.post(f"{served.url}/infer", json=row, timeout=60).status_code for row in rows]

        with ThreadPoolExecutor(4) as clients:
            assert {status for each in clients.map(ask, range(4)) for status in each} == {200}
        logged = [tuple(row["in"]["x"][:2]) for row in served.post("/logs").json()]
        assert sorted(logged) == [(client, at) for client in range(4) for at in range(40)]


def test_without_a_log_nobody_asks_a_shadow(tmp_path):
    with Served(tmp_path, Front()) as served:
        spool = add(served, 5, LogPolicy("off"))
        assert served.post(rows=[{"x": [1, 2, 3]}]).json()[0]["out"] == {"y": [12.0]}
        assert spool.stats()["held"] == 0


def test_a_pipeline_that_is_switched_off_leaves_its_shadows_out(tmp_path):
    with Served(tmp_path, Front()) as served:
        spool = add(served, 30)
        served.post(rows=[{"x": [1, 2, 3]}])
        assert spool.stats()["held"] == 1
        served.serving.remove("demo")
        (block,) = spool.rows()
        assert block.arrays["metadata.dropped"].tolist() == [["out_next"]]


# The log


def row(number, dropped=()):
    arrays = {
        "time": np.array([number]),
        "in.x": np.array([float(number)]),
        "out.y": np.array([2.0 * number]),
        "metadata.dropped": object_array([list(dropped)]),
    }
    return Columns(SCHEMA, arrays, 1)


def logged(spool):
    return [(x, d) for block in spool.rows() for x, d in zip(block["in.x"], block["metadata.dropped"], strict=True)]


def test_rows_beyond_the_limit_are_not_held(tmp_path):
    go_on = threading.Event()

    def whole():
        assert go_on.wait(60)
        return row(0)

    with Spool(tmp_path / "demo", LogPolicy("relaxed"), "line-4") as spool:
        tickets = [spool.hold(row(0, ["out_next"]), whole, "r") for _ in range(held.MOST_HELD + 3)]
        assert tickets.count(None) == 3
        assert all(ticket.wait() >= 0 for ticket in tickets if ticket)
        go_on.set()
        assert logged(spool) == [(0.0, [])] * held.MOST_HELD
        assert spool.hold(row(0), whole, "r") is not None


def test_a_fault_in_a_shadow_leaves_the_row_as_it_was_answered(tmp_path, caplog):
    with Spool(tmp_path / "demo", LogPolicy("relaxed"), "line-4") as spool:
        spool.hold(row(1, ["out_next"]), lambda: 1 / 0, "r").wait()
        assert logged(spool) == [(1.0, ["out_next"])]
    assert "fault of ours with shadow models" in caplog.text


def test_a_row_that_the_disk_refused_is_neither_answered_nor_logged():
    disk = MemoryDisk()
    with Spool(Path("/spool/demo"), LogPolicy(), "line-4", disk=disk) as spool:
        spool.hold(row(0, ["out_next"]), lambda: row(0), "r").wait()
        assert logged(spool) == [(0.0, [])]
        disk.before = Refusal({"sync"}, 1, errno.EIO)
        refused = spool.hold(row(1, ["out_next"]), lambda: row(1), "r")
        with pytest.raises(Unreachable):
            refused.wait()
        spool.hold(row(2, ["out_next"]), lambda: row(2), "r").wait()
        assert logged(spool) == [(0.0, []), (2.0, [])]


def test_what_is_held_when_a_log_is_closed_is_logged_without_its_shadows(tmp_path):
    begun = threading.Event()

    def slow():
        begun.set()
        return row(1)

    with Spool(tmp_path / "demo", LogPolicy(), "line-4") as spool:
        gate = threading.Event()
        spool.hold(row(0, ["out_next"]), lambda: (gate.wait(60), row(0))[1], "a").wait()
        spool.hold(row(1, ["out_next"]), slow, "b").wait()
        closing = threading.Thread(target=spool.close)
        closing.start()
        gate.set()
        closing.join()
    with Spool(tmp_path / "demo", LogPolicy(), "line-4") as spool:
        assert [x for x, _ in logged(spool)] == [0.0, 1.0]
    assert begun.is_set() == (logged_dropped(tmp_path)[1] == [])


def logged_dropped(tmp_path):
    with Spool(tmp_path / "demo", LogPolicy(), "line-4") as spool:
        return [dropped for _, dropped in logged(spool)]


@pytest.mark.parametrize(("finished", "forgotten"), [(0, False), (3, False), (3, True), (5, True)])
def test_after_a_power_cut_every_answered_row_is_in_the_log_once(monkeypatch, finished, forgotten):
    if forgotten:
        monkeypatch.setattr(held, "MOST_BYTES", 16 << 10)
    disk, folder, gate = MemoryDisk(), Path("/spool/demo"), threading.Event()
    with Spool(folder, LogPolicy(), "line-4", disk=disk) as spool:
        for number in range(5):
            whole = (
                (lambda at=number: row(at)) if number < finished else (lambda at=number: (gate.wait(60), row(at))[1])
            )
            until = time.monotonic() + 60
            while (ticket := spool.hold(row(number, ["out_next"]), whole, "same")) is None:
                assert time.monotonic() < until
            ticket.wait()
        while spool.stats()["held"] > 5 - finished or spool._held._emptying:  # the next shadow waits at the gate
            assert time.monotonic() < until
            time.sleep(0.001)
        states = list(disk.crash_states(random.Random(finished), 10))
        gate.set()
    for state in states:
        with Spool(folder, LogPolicy(), "line-4", disk=state) as spool:
            assert sorted(x for x, _ in logged(spool)) == [0.0, 1.0, 2.0, 3.0, 4.0]


DIES = """
    import os, sys, threading
    from pathlib import Path
    from bundle.pipeline import LogPolicy
    from edge_agent.inference_log.spool import Spool
    from tests.edge_agent.test_held import row

    spool = Spool(Path(sys.argv[1]), LogPolicy(), "line-4")
    never, finished = threading.Event(), int(sys.argv[2])
    tickets = []
    for number in range(6):
        whole = (lambda number=number: row(number)) if number < finished else (lambda: never.wait(60))
        tickets.append(spool.hold(row(number, ["out_next"]), whole, "same"))
    for ticket in tickets:
        ticket.wait()
    while spool.stats()["rows"] < finished:
        pass
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("finished", [0, 3, 6])
def test_after_a_kill_every_answered_row_is_in_the_log_once(tmp_path, finished):
    code = textwrap.dedent(DIES)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "demo"), str(finished)], check=False, timeout=110)
    assert done.returncode == -9
    for _ in range(2):  # and stays so
        with Spool(tmp_path / "demo", LogPolicy("off"), "line-4") as spool:
            found = logged(spool)
            assert found == [(float(at), [] if at < finished else ["out_next"]) for at in range(6)]
            (block, *_) = spool.rows()
            assert "metadata.held_after" not in block.schema.names


def test_held_rows_are_forgotten_when_there_are_many_and_are_still_logged_once(tmp_path, monkeypatch):
    monkeypatch.setattr(held, "MOST_BYTES", 256 << 10)
    with Spool(tmp_path / "demo", LogPolicy("relaxed"), "line-4") as spool:
        for number in range(100):
            until = time.monotonic() + 60
            while (ticket := spool.hold(row(number, ["out_next"]), lambda at=number: row(at), "r")) is None:
                assert time.monotonic() < until  # there is room again after they were forgotten
                time.sleep(0.001)
            ticket.wait()
            if number % 10 == 0:
                assert len(logged(spool)) == number + 1
        assert spool._held._journal.stats()["rows"] < 30
    with Spool(tmp_path / "demo", LogPolicy("relaxed"), "line-4") as spool:
        assert [x for x, _ in logged(spool)] == list(range(100))
