"""`make bench-faults`: how much harm it takes. Power cuts, damaged requests, and stops under load, in numbers.

`python -m bench.faults cuts --cuts 500`, `mutants --mutants 50000`, `stops --stops 10`; without a part, all three.
Cuts need root and a loop device. What is not as promised ends with exit code 1 and says by which seed it comes again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.table import Figure, print_table
from tests.edge_agent.real_hub import running_hub
from tests.faults.device import FORGETFUL, Device
from tests.faults.fleet_trial import FleetTrial
from tests.faults.ordeal import Ordeal
from tests.faults.stops import stop_under_load
from tests.faults.trial import Outcome, Trial
from tests.faults.volume import why_not

_PER_VOLUME = 50  # cuts; then a fresh file system and another seed
_PER_FLEET = 10
_FORGETFUL_SEEDS = 5
_SEED = 100


def measure_cuts(cuts: int, place: Path) -> list[Figure]:
    """Cuts while a device serves, a tenth as many while its hub updates it, and with a log that does not sync."""
    if reason := why_not():
        raise SystemExit(f"no power can be cut here: {reason}")
    serving = [
        Trial(place / f"serving-{at}", _SEED + at).run(min(_PER_VOLUME, cuts - at))
        for at in range(0, cuts, _PER_VOLUME)
    ]
    fleet = [_fleet(place / f"fleet-{at}", _SEED + at) for at in range(0, cuts // 10, _PER_FLEET)]
    caught = [_forgetful(place / f"forgetful-{seed}", seed) for seed in range(_FORGETFUL_SEEDS)]
    return [*_told("serving", serving), *_told("updates and sync", fleet), *_told_caught(caught)]


def _fleet(place: Path, seed: int) -> Outcome:
    with running_hub(place / "hub") as hub:
        return FleetTrial(place / "device", seed, hub).run(_PER_FLEET)


def _forgetful(place: Path, seed: int) -> Outcome:
    return Trial(place, seed, program=FORGETFUL).run(20)


def _told(name: str, outcomes: list[Outcome]) -> list[Figure]:
    cuts = sum(each.cuts for each in outcomes)
    found = {kind: sum(len(getattr(each, kind)) for each in outcomes) for kind in Outcome.KINDS}
    return [
        Figure(f"power cuts, {name}", cuts, "cuts"),
        Figure("  rows answered before them", sum(each.answered for each in outcomes), "rows"),
        *(Figure(f"  {kind}", count, "found", promised="0") for kind, count in found.items()),
        Figure("  a cut with all that belongs to it", sum(each.seconds for each in outcomes) / max(1, cuts), "s"),
    ]


def _told_caught(outcomes: list[Outcome]) -> list[Figure]:
    caught = [each.cuts for each in outcomes if each.lost]
    return [
        Figure("a log that does not sync: caught", len(caught), "trials", promised=str(len(outcomes))),
        Figure("  after, at most", max(caught, default=0), "cuts", promised="20 or fewer"),
        Figure("  rows lost", sum(len(each.lost) for each in outcomes), "rows"),
    ]


def measure_mutants(mutants: int, place: Path, seed: int) -> list[Figure]:
    """Damaged requests at every door of one agent. Raises AssertionError that names the one that did harm."""
    place.mkdir()
    begun = time.monotonic()
    with Device.of_all_doors(place, place / "agent.log") as device, Ordeal(device, seed) as ordeal:
        outcome = ordeal.run(range(mutants))
    statuses = [
        Figure(f"  answered {status}" if status else "  closed without a word", count, "requests")
        for status, count in sorted(outcome.statuses.items())
    ]
    return [
        Figure(f"damaged requests, seed {seed}", outcome.mutants, "mutants"),
        *statuses,
        Figure("  deaths, faults of ours, wrong answers afterwards", 0, "found", promised="0"),
        Figure("  most memory of the agent", outcome.peak_rss_mib, "MiB"),
        Figure("  seconds", time.monotonic() - begun, "s"),
    ]


def measure_stops(stops: int, place: Path) -> list[Figure]:
    """SIGTERM under load."""
    found = [stop_under_load(place / f"stop-{turn}", turn) for turn in range(stops)]
    return [
        Figure("stops under load", len(found), "stops"),
        Figure("  requests answered", sum(each.answered for each in found), "requests"),
        Figure("  logged and not answered", sum(len(each.unanswered) for each in found), "requests", promised="0"),
        Figure("  sent and neither", sum(len(each.dropped) for each in found), "requests", promised="0"),
        Figure("  longest", max(each.seconds for each in found), "s"),
    ]


def main() -> int:
    """Measure what was asked for and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["cuts", "mutants", "stops", []], help="default: all")
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--mutants", type=int, default=50_000)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the mutants")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order, so that nothing stays mounted
    parts = options.parts or ["cuts", "mutants", "stops"]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="edgepack-faults-") as folder:
        place = Path(folder)
        if "cuts" in parts:
            figures += measure_cuts(options.cuts, place)
        if "mutants" in parts:
            try:
                figures += measure_mutants(options.mutants, place / "mutants", options.seed)
            except AssertionError as harm:
                print(harm, file=sys.stderr)
                return 1
        if "stops" in parts:
            figures += measure_stops(options.stops, place)
    print_table(figures)
    return 1 if any(figure.promised == "0" and figure.value for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
