from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from bundle.pipeline import LogPolicy
from columns.columns import Columns
from columns.schema import Schema
from edge_agent.inference_log.spools import Spools
from edge_agent.link.enrol import open_hub
from edge_agent.link.hub_client import HttpHub
from edge_agent.link.sync import Sync
from edge_agent.state import State
from edgepack.errors import NotTrusted, Unreachable
from fleet.messages import ErrorBody, Receipt
from tests.edge_agent.real_hub import enrolled_folder
from tests.fakes.hub import LyingHub

SCHEMA = Schema.parse({"time": "int64", "in.x": "float64"})


def result(first: int, rows: int = 3) -> Columns:
    values = np.arange(first, first + rows)
    return Columns.of(SCHEMA, {"time": values.astype(np.int64), "in.x": values.astype(np.float64)})


class Device:
    """Spools, state and hub client of an enrolled device, without serving."""

    def __init__(self, folders, enrolled):
        self.id = enrolled.device
        self.state = State.open(folders.state)
        self.spools = Spools(folders.spools, lambda: enrolled.name)
        self.hub = open_hub(folders, enrolled)
        self.sync = Sync(self.spools.all, self.hub, self.state)

    def record(self, first, rows=3, name="demo"):
        self.spools.open(name, LogPolicy(max_bytes="16Mi")).record(result(first, rows), f"r{first}")

    def close(self):
        self.hub.close()
        self.spools.close()
        self.state.close()


@pytest.fixture
def device(hub, link, tmp_path):
    device = Device(*enrolled_folder(hub, tmp_path / "data", link.url))
    yield device
    device.close()


def values_at(hub, device):
    return sorted(row["in"]["x"] for row in hub.rows(device.id))


def test_rows_go_home_once_and_in_order_and_stay_readable_here(hub, device):
    for first in (0, 3, 6):
        device.record(first)
        assert device.sync.send_all() == 3
    assert [row["metadata"]["seq"] for row in hub.rows(device.id)] == list(range(1, 10))
    assert values_at(hub, device) == list(range(9))
    assert device.sync.send_all() == 0
    assert device.state.sent("demo").rows == 9
    assert device.spools.pending_rows() == {"demo": 0}
    assert sum(block.rows for block in device.spools.all()["demo"].rows()) == 9


def test_rows_of_a_pipeline_that_serves_no_longer_go_home_after_a_restart(hub, device, link, tmp_path):
    device.record(0, name="gone")
    enrolled = device.state.enrolment()
    device.close()
    from edge_agent.folders import Folders

    again = Device(Folders(tmp_path / "data"), enrolled)
    assert again.sync.send_all() == 3
    assert values_at(hub, device) == [0, 1, 2]
    again.close()


def test_a_receipt_that_was_lost_leads_to_the_same_segment_again_and_one_row_at_the_hub(hub, device, link):
    device.record(0)
    link.lose_answers(2, b"PUT /api/v1/segments")
    for _ in range(2):
        with pytest.raises(Unreachable):
            device.sync.send_all()
    assert device.sync.send_all() == 3
    assert link.lost == 2
    assert values_at(hub, device) == [0, 1, 2]


def test_rows_recorded_while_the_hub_is_away_arrive_later_in_few_segments(hub, device, link):
    link.die()
    for first in range(0, 30, 3):
        device.record(first)
        with pytest.raises(Unreachable):
            device.sync.send_all()
    assert len(device.spools.all()["demo"].sealed()) == 1
    link.mend()
    assert device.sync.send_all() == 30
    assert values_at(hub, device) == list(range(30))
    assert device.state.sent("demo").segments == 2


def test_a_receipt_is_acted_upon_by_the_next_pass_if_a_kill_came_before(hub, device):
    """The kill comes after the receipt was recorded and before the spool heard of it."""
    device.record(0)
    spool = device.spools.all()["demo"]
    segment = spool.seal()
    device.state.record_receipt("demo", Receipt("dev", spool.epoch, segment.number, "sha256:" + "0" * 64, 3))
    assert device.sync.send_all() == 0
    assert spool.sealed() == []
    assert device.state.receipts("demo") == set()
    assert hub.rows(device.id) == []


def test_a_device_that_the_hub_no_longer_knows_keeps_its_rows_and_waits(hub, device, tmp_path):
    stranger = Sync(device.spools.all, HttpHub(hub.url, device="dev_0", bearer="dev_0.x"), device.state)
    device.record(0)
    with pytest.raises(Unreachable, match="segments wait"):
        stranger.send_all()
    assert device.state.sent("demo").refused_segments == 0
    assert device.sync.send_all() == 3


@pytest.fixture
def lying(device):
    """A hub that answers segments as the test says; the device's spool is real."""
    made = []

    def start(tell):
        hub = LyingHub(lambda method, path, body: tell(path, body))
        made.append(hub)
        client = HttpHub(hub.url, device="dev_1", bearer="dev_1.x", read_s=60)
        made.append(client)
        return hub, Sync(device.spools.all, client, device.state)

    yield start
    for each in made:
        each.close()


def refusal(status):
    return status, {}, msgspec.json.encode(ErrorBody(status, "Error", "not this one", "hub"))


def taken(path, **changes):
    device, epoch, number = path.split("/")[-3:]
    said = {"device": device, "epoch": epoch, "segment": int(number), "digest": "sha256:" + "0" * 64, "rows": 3}
    return 201, {}, msgspec.json.encode(Receipt(**{**said, **changes}))


@pytest.mark.parametrize("status", [409, 413, 422])
def test_a_refused_segment_stays_on_disk_counted_and_the_others_go_on(device, lying, status):
    from oci.digest import Digest

    def tell(path, body):
        return (
            refusal(status) if path.endswith("/0") or path.endswith("/1") else taken(path, digest=str(Digest.of(body)))
        )

    hub, sync = lying(tell)
    device.record(0)
    first = device.spools.all()["demo"].seal()
    assert sync.send_all() == 0
    sent_before = len(hub.requests)
    assert sync.send_all() == 0
    assert len(hub.requests) == sent_before
    assert first.path.exists()
    sent = device.state.sent("demo")
    assert (sent.refused_segments, sent.refused_rows) == (1, 3)
    while sent.rows == 0:
        device.record(3)
        sync.send_all()
        sent = device.state.sent("demo")
    assert sent.rows == 3


def test_a_segment_called_damaged_is_sent_again_before_it_is_given_up(device, lying):
    hub, sync = lying(lambda path, body: refusal(400))
    device.record(0)
    for _ in range(2):
        with pytest.raises(Unreachable, match="sent again"):
            sync.send_all()
    assert sync.send_all() == 0
    assert len(hub.requests) == 3
    assert device.state.sent("demo").refused_segments == 1


@pytest.mark.parametrize(
    "lie", [{"digest": "sha256:" + "1" * 64}, {"segment": 99}, {"epoch": "f" * 16}, {"device": "x"}]
)
def test_a_receipt_for_something_else_confirms_nothing(device, lying, lie):
    from oci.digest import Digest

    _, sync = lying(lambda path, body: taken(path, **{"digest": str(Digest.of(body)), **lie}))
    device.record(0)
    with pytest.raises(NotTrusted, match="keeping the segment"):
        sync.send_all()
    assert len(device.spools.all()["demo"].sealed()) == 1
    assert device.state.sent("demo").rows == 0


_WRITER = """
import sys
from pathlib import Path
from edge_agent.folders import Folders
from edge_agent.state import State
from tests.edge_agent.test_sync import Device
folders = Folders(Path(sys.argv[1]))
device = Device(folders, State.read(folders.state).enrolment())
first = int(sys.argv[2])
while True:
    device.record(first)
    print(first, flush=True)
    first += 3
    try:
        device.sync.send_all()
    except Exception:
        pass
"""


def test_kills_in_the_middle_of_sync_and_lost_answers_leave_each_row_at_the_hub_once(hub, link, tmp_path):
    folders, enrolled = enrolled_folder(hub, tmp_path / "data", link.url)
    dice, acknowledged, following = random.Random(5), [], 0
    for _ in range(5):
        link.lose_answers(1, b"PUT /api/v1/segments")
        command = [sys.executable, "-c", _WRITER, str(folders.root), str(following)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        said = [int(child.stdout.readline()) for _ in range(dice.randint(1, 3))]
        time.sleep(dice.uniform(0.02, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        said += [int(line) for line in child.stdout.read().split()]
        child.wait()
        child.stdout.close()
        acknowledged += said
        following = said[-1] + 1000
    device = Device(folders, enrolled)
    device.sync.send_all()
    device.close()
    found = [row["in"]["x"] for row in hub.rows(enrolled.device)]
    wanted = {first + offset for first in acknowledged for offset in range(3)}
    assert len(found) == len(set(found))
    assert wanted <= set(found)
    # beyond what was acknowledged: at most the rows that each kill cut off
    assert len(set(found) - wanted) <= 5 * 3
    assert len(wanted) > 15
