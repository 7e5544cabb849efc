"""`make demo`: a model becomes two images, a device serves it, and every row reaches the hub once.

In between, the hub is cut off for a while and the agent is killed. All is done with the programs `edgepack` and
`edgepack-agent`, as a user would. KEEP=1 leaves hub and agent running.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from examples.demo.ledger import HubLog, Reckoning
from examples.demo.link import Link
from examples.demo.load import Tally, ask_all, steady_load
from examples.demo.programs import Program, call, free_port

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "examples" / "wine-line"
PLACE = CHECKOUT / ".demo"
PIPELINE = "wine-line"
APPLICATIONS = 4
LINK_CUT_S = 5.0

T = TypeVar("T")


def main() -> int:
    """Tell the story, print the table; 0 if every figure is right."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    clock = Clock()
    builds = [clock.time(f"build, {name}", partial(build, name)) for name in ("first", "again")]
    hub_port = free_port()
    link = Link(hub_port)
    hub = Program("edgepack", "hub", "--port", str(hub_port), "--data", str(PLACE / "hub"), log=PLACE / "hub.log")
    device = Device(PLACE / "device", link.port)
    tally = Tally()
    try:
        hub.wait_for(f"http://127.0.0.1:{hub_port}/healthz")
        admin = admin_of(hub_port)
        clock.time("publish, enrol, deploy", lambda: deploy(admin, device))
        clock.time("all rows, both formats", lambda: ask_all(device.port, PIPELINE, example_rows(), tally))
        clock.time("load with a dead link and a SIGKILL", lambda: hard_times(device, link, tally))
        log = HubLog(f"http://127.0.0.1:{hub_port}", admin["EDGEPACK_TOKEN"])
        reckoning = clock.time("last rows reach the hub", lambda: log.wait_for(tally, 240))
        right = report(builds, tally, reckoning, clock)
    finally:
        if os.environ.get("KEEP") == "1":
            keep(hub, device, link)
        device.stop()
        hub.stop()
        link.close()
    return 0 if right else 1


class Clock:
    """Seconds of each part of the story, said when the part ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, part: str, work: Callable[[], T]) -> T:
        """Do the work and note how long it took."""
        begun = time.perf_counter()
        result = work()
        self.seconds[part] = time.perf_counter() - begun
        print(f"  {part:<40} {self.seconds[part]:6.1f} s", flush=True)
        return result


class Device:
    """The agent with its data folder, behind the link."""

    def __init__(self, data: Path, link_port: int) -> None:
        self.data, self.hub = data, f"http://127.0.0.1:{link_port}"
        self.port = free_port()
        self._program: Program | None = None

    def start(self) -> None:
        """Start the agent and wait until it is alive."""
        arguments = ("run", "--data", str(self.data), "--port", str(self.port))
        self._program = Program("edgepack-agent", *arguments, log=self.data.parent / "agent.log")
        self._program.wait_for(f"http://127.0.0.1:{self.port}/healthz")

    def wait_until_ready(self) -> None:
        """Return once the agent serves what it was assigned."""
        assert self._program is not None
        self._program.wait_for(f"http://127.0.0.1:{self.port}/readyz", 60)

    def kill(self) -> None:
        """SIGKILL the agent."""
        assert self._program is not None
        self._program.kill()

    def stop(self) -> None:
        """End the agent, if it was started."""
        if self._program is not None:
            self._program.stop()


def build(name: str) -> dict[str, Any]:
    """Build both images of a copy of the example, in a folder of its own, with no layer taken from the cache."""
    project = PLACE / name / PIPELINE
    shutil.copytree(EXAMPLE, project)
    output = PLACE / name / f"{PIPELINE}.oci.tar"
    return call("build", str(project), "--arch", "x86", "--arch", "arm", "--no-layer-cache", "-o", str(output))


def admin_of(hub_port: int) -> dict[str, str]:
    """The environment of an operator: the hub's address and its admin token, kept by the hub beside its data."""
    token = (PLACE / "hub" / "admin-token").read_text().strip()
    return {"EDGEPACK_HUB": f"http://127.0.0.1:{hub_port}", "EDGEPACK_TOKEN": token}


def deploy(admin: dict[str, str], device: Device) -> None:
    """Publish the pipeline, enrol the device, tell it what to run, and wait until it does."""
    call("publish", str(PLACE / "first" / PIPELINE), env=admin)
    token = call("devices", "token", env=admin)["token"]
    call(
        "enrol",
        "--hub",
        device.hub,
        "--token",
        token,
        "--name",
        "line-1",
        "--data",
        str(device.data),
        program="edgepack-agent",
    )
    device.start()
    call("deploy", PIPELINE, "--device", "line-1", env=admin)
    device.wait_until_ready()


def hard_times(device: Device, link: Link, tally: Tally) -> None:
    """Load without a pause, while the hub is cut off for a while and the agent is killed and started again."""
    with steady_load(device.port, PIPELINE, example_rows(), tally, APPLICATIONS):
        time.sleep(2)
        link.cut()
        time.sleep(LINK_CUT_S)
        link.mend()
        time.sleep(1)
        device.kill()
        device.start()
        device.wait_until_ready()
        time.sleep(2)


def report(builds: list[dict[str, Any]], tally: Tally, reckoning: Reckoning, clock: Clock) -> bool:
    """Print the table; True if every figure is as promised."""
    in_flight = APPLICATIONS * 3
    checks = {
        "the two builds have one digest": builds[0]["digest"] == builds[1]["digest"],
        "every answered row is at the hub exactly once": reckoning.is_right,
        f"rows cut off by the kill ≤ rows in flight ({in_flight})": sum(tally.cut_off.values()) <= in_flight,
        "no request was refused": not tally.refused,
    }
    _print_table(builds[0], tally, reckoning)
    print(f"  the whole story          {sum(clock.seconds.values()):.0f} s\n")
    for promise, kept in checks.items():
        print(f"  {'ok  ' if kept else 'FAIL'} {promise}")
    for refusal in tally.refused[:3]:
        print(f"       {refusal}")
    return all(checks.values())


def _print_table(built: dict[str, Any], tally: Tally, reckoning: Reckoning) -> None:
    latency = f"p50 {tally.quantile_ms(0.5):.1f} ms, p99 {tally.quantile_ms(0.99):.1f} ms"
    print(f"\n  index of both images     {built['digest']}")
    for image in built["images"]:
        print(f"  image {image['target']:<18} {image['digest']}  {image['platform']}")
    print(f"  file                     {built['size_bytes'] / 1e6:.1f} MB for both, in {built['seconds']:.1f} s")
    print(f"  requests                 {len(tally.answered)} answered, {latency}")
    print(f"  put off with a 503       {tally.put_off} while the agent was starting")
    print(f"  rows answered            {tally.rows_answered}")
    print(f"  of these at the hub      {reckoning.matched} (missing {reckoning.missing}, doubled {reckoning.doubled})")
    print(f"  rows cut off by the kill {sum(tally.cut_off.values())} (of these logged: {reckoning.cut_off_at_hub})")


def keep(hub: Program, device: Device, link: Link) -> None:
    """Leave everything running until Ctrl-C, and say where to look."""
    token = (PLACE / "hub" / "admin-token").read_text().strip()
    print(f"\n  hub page   {device.hub}/   (token {token})")
    print(f"  agent page http://127.0.0.1:{device.port}/\n  Ctrl-C ends both.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


def example_rows() -> list[list[float]]:
    """The input rows of the example's golden rows."""
    return [row["in.inputs"] for row in json.loads((EXAMPLE / "golden.json").read_text())]


if __name__ == "__main__":
    sys.exit(main())
