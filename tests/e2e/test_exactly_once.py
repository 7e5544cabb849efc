"""Hub and agent as real programs: an answered row is at the hub once, whatever was killed or cut meanwhile."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.demo.ledger import HubLog
from examples.demo.link import Link
from examples.demo.load import Tally, steady_load
from examples.demo.programs import Program, call, free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "wine-line"
APPLICATIONS = 4


@dataclass
class Plant:
    """A hub, a link, one enrolled device that runs the example."""

    place: Path
    hub_port: int
    agent_port: int
    link: Link
    admin: dict[str, str]
    hub: Program
    agent: Program

    def start_hub(self) -> None:
        self.hub = _hub(self.place, self.hub_port)

    def start_agent(self) -> None:
        self.agent = _agent(self.place, self.agent_port)
        self.agent.wait_for(f"http://127.0.0.1:{self.agent_port}/readyz", 60)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    place = tmp_path_factory.mktemp("plant")
    shutil.copytree(EXAMPLE, place / "wine-line")
    hub_port, agent_port = free_port(), free_port()
    hub = _hub(place, hub_port)
    link = Link(hub_port)
    admin = {
        "EDGEPACK_HUB": f"http://127.0.0.1:{hub_port}",
        "EDGEPACK_TOKEN": (place / "hub" / "admin-token").read_text().strip(),
    }
    call("publish", str(place / "wine-line"), env=admin)
    token = call("devices", "token", env=admin)["token"]
    link_url = f"http://127.0.0.1:{link.port}"
    call(
        "enrol",
        "--hub",
        link_url,
        "--token",
        token,
        "--name",
        "d1",
        "--data",
        str(place / "device"),
        program="edgepack-agent",
    )
    agent = _agent(place, agent_port)
    built = Plant(place, hub_port, agent_port, link, admin, hub, agent)
    try:
        call("deploy", "wine-line", "--device", "d1", env=admin)
        agent.wait_for(f"http://127.0.0.1:{agent_port}/readyz", 60)
        yield built
    finally:
        built.agent.stop()
        built.hub.stop()
        link.close()


def until_more_is_answered(tally: Tally) -> None:
    """Wait for some rows more than there are now."""
    enough, end = tally.rows_answered + 50, time.monotonic() + 60
    while tally.rows_answered < enough:
        assert time.monotonic() < end, tally.refused
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_every_answered_row_is_at_the_hub_once_after_kills_of_agent_and_hub_and_dead_links(
    plant: Plant,
) -> None:
    tally = Tally()
    rows = [row["in.inputs"] for row in json.loads((EXAMPLE / "golden.json").read_text())]
    with steady_load(plant.agent_port, "wine-line", rows, tally, APPLICATIONS):
        for _ in range(2):
            until_more_is_answered(tally)
            plant.agent.kill()
            plant.start_agent()
        plant.link.cut()
        time.sleep(1.5)
        plant.link.mend()
        plant.hub.kill()
        plant.start_hub()
        until_more_is_answered(tally)
    log = HubLog(plant.admin["EDGEPACK_HUB"], plant.admin["EDGEPACK_TOKEN"])
    reckoning = log.wait_for(tally, 240)
    assert tally.refused == []
    assert tally.rows_answered > 100
    assert reckoning.is_right, reckoning
    assert sum(tally.cut_off.values()) <= 2 * APPLICATIONS * 3


def _hub(place: Path, port: int) -> Program:
    program = Program("edgepack", "hub", "--port", str(port), "--data", str(place / "hub"), log=place / "hub.log")
    program.wait_for(f"http://127.0.0.1:{port}/healthz")
    return program


def _agent(place: Path, port: int) -> Program:
    return Program(
        "edgepack-agent", "run", "--data", str(place / "device"), "--port", str(port), log=place / "agent.log"
    )
