"""The power goes while a device is at work: what its clients were answered is there afterwards, once and whole.

EDGEPACK_POWER_CUTS sets how often it goes under load (default 50); `python -m bench.faults cuts` is the long form.
"""

from __future__ import annotations

import os

import pytest

from tests.edge_agent.real_hub import running_hub
from tests.faults.device import FORGETFUL
from tests.faults.fleet_trial import FleetTrial
from tests.faults.trial import Trial
from tests.faults.volume import why_not

CUTS = int(os.environ.get("EDGEPACK_POWER_CUTS", "50"))
WITHIN = 20  # cuts, after which a log that does not sync must have been caught
FLEET_CUTS = 8

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _power_can_be_cut():
    if reason := why_not():
        pytest.skip(reason)


def test_no_cut_takes_an_answered_row_or_gives_its_sequence_to_another(tmp_path):
    outcome = Trial(tmp_path / "cut", seed=1).run(CUTS)
    print(f"{outcome.cuts} cuts, {outcome.answered} rows answered, {outcome.seconds:.0f} s")
    assert outcome.faults == {}, outcome
    assert outcome.cuts == CUTS
    assert outcome.answered > CUTS


def test_a_log_that_does_not_sync_is_caught(tmp_path):
    outcome = Trial(tmp_path / "cut", seed=2, program=FORGETFUL).run(WITHIN)
    assert outcome.lost


def test_cuts_while_bundles_change_and_the_log_goes_home_leave_nothing_half_done(tmp_path):
    with running_hub(tmp_path / "hub") as hub:
        trial = FleetTrial(tmp_path / "cut", 4, hub)
        outcome = trial.run(FLEET_CUTS)
    assert outcome.faults == {}, outcome
    assert outcome.cuts == FLEET_CUTS
    assert trial.bundles == set(trial.factors)  # both bundles did answer
    assert len(trial.at_hub) >= outcome.answered > 0
