"""SIGTERM under load: every request that an agent took is answered, and nobody is hung up on."""

from __future__ import annotations

import pytest

from tests.faults.stops import stop_under_load

STOPS = 10


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_stop_under_load_answers_what_was_sent(tmp_path):
    stops = [stop_under_load(tmp_path / str(turn), turn) for turn in range(STOPS)]
    print(f"{len(stops)} stops, {sum(stop.answered for stop in stops)} requests answered")
    assert [stop.code for stop in stops] == [0] * STOPS
    assert all(stop.answered for stop in stops)
    for kind in ("unanswered", "dropped", "refused"):
        assert [getattr(stop, kind) for stop in stops] == [[]] * STOPS
