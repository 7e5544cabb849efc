from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from edge_agent.state import Enrolled, Installed, Quarantined, Sent, State
from edgepack.errors import BadInput, RuntimeFailed
from fleet.messages import Assigned, Assignment, Receipt

A, B, C = (Assigned(f"sha256:{digit * 64}", f"sha256:{digit * 63}0", "demo") for digit in "abc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.sqlite"


@pytest.fixture
def state(path):
    state = State.open(path)
    yield state
    state.close()


def assignment(sequence, **pipelines):
    return Assignment("dev_1", sequence, pipelines, 5.0)


def receipt(number, rows=3, epoch="e" * 16):
    return Receipt("dev_1", epoch, number, "sha256:" + "d" * 64, rows)


def test_a_state_starts_empty(state):
    assert state.enrolment() is None
    assert state.assignment() is None
    assert state.floor() == 0
    assert state.installed() == {}
    assert state.sent("demo") == Sent()


def test_every_write_is_synced_and_in_wal_mode(state, path):
    state.activate("demo", A)
    assert state._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert state._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_activating_makes_the_one_before_the_previous_and_again_changes_nothing(state):
    state.activate("demo", A)
    state.activate("demo", B)
    assert state.installed() == {"demo": Installed(B, A)}
    state.activate("demo", B)
    assert state.installed() == {"demo": Installed(B, A)}
    state.activate("demo", C)
    assert state.installed() == {"demo": Installed(C, B)}


def test_going_back_swaps_active_and_previous(state):
    state.activate("demo", A)
    state.activate("demo", B)
    state.activate("demo", A)
    assert state.installed() == {"demo": Installed(A, B)}


def test_the_sequence_of_the_accepted_assignment_is_a_floor(state):
    state.accept(assignment(7, demo=A), '"7"')
    assert (state.floor(), state.etag()) == (7, '"7"')
    with pytest.raises(RuntimeFailed, match="below the floor 7"):
        state.accept(assignment(6, demo=B), '"6"')
    assert state.assignment() == assignment(7, demo=A)


def test_another_identity_starts_without_the_old_floor_and_the_same_keeps_it(state):
    me = Enrolled("http://localhost:1", "dev_1", "line-1", 5.0, "f" * 64)
    state.enrol(me)
    state.accept(assignment(7, demo=A), None)
    state.enrol(me)
    assert state.floor() == 7
    state.enrol(Enrolled("http://localhost:2", "dev_2", "line-1", 5.0, "f" * 64))
    assert state.floor() == 0


def test_attempts_count_on_under_one_sequence_and_anew_under_another(state):
    assert [state.begin_attempt(A.manifest, 1) for _ in range(3)] == [1, 2, 3]
    assert state.begin_attempt(A.manifest, 2) == 1
    state.activate("demo", A)
    assert state.begin_attempt(A.manifest, 2) == 1


def test_a_quarantine_ends_when_the_manifest_becomes_active_after_all(state):
    state.quarantine(A.manifest, Quarantined(3, "failed", "answers wrongly"))
    assert state.quarantined() == {A.manifest: Quarantined(3, "failed", "answers wrongly")}
    state.activate("demo", A)
    assert state.quarantined() == {}


def test_a_receipt_counts_once_however_often_it_is_recorded(state):
    for _ in range(2):
        state.record_receipt("demo", receipt(4))
    assert state.receipts("demo") == {("e" * 16, 4)}
    state.settle("demo", "e" * 16, 4)
    assert state.receipts("demo") == set()
    assert state.sent("demo") == Sent(segments=1, rows=3)


def test_a_refused_segment_is_counted_with_its_reason(state):
    state.refuse_segment("demo", "e" * 16, 2, 5, "another digest")
    assert state.refused_segments("demo") == {("e" * 16, 2): "another digest"}
    assert state.sent("demo") == Sent(0, 0, 1, 5)


def test_all_survives_closing_and_can_be_read_by_another_process_meanwhile(path):
    state = State.open(path)
    state.activate("demo", A)
    state.beat(last_check_in_ms=5, errors={"sync": "away"})
    reader = State.read(path)
    assert reader.installed() == {"demo": Installed(A)}
    assert reader.pulse() == {"last_check_in_ms": 5, "errors": {"sync": "away"}}
    reader.close()
    state.close()
    again = State.open(path)
    assert again.installed() == {"demo": Installed(A)}
    again.close()


def test_reading_where_no_agent_ran_is_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match="no agent has run"):
        State.read(tmp_path / "state.sqlite")


def test_a_newer_schema_is_refused(path):
    State.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BadInput, match="schema 99"):
        State.open(path)


def test_a_damaged_file_is_one_clear_line(path):
    path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(RuntimeFailed, match=r"state .* does not open"):
        State.open(path)


_WRITER = """
import sys
from pathlib import Path
from edge_agent.state import State
from fleet.messages import Assigned
state = State.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    state.activate("demo", Assigned(f"sha256:{number:064x}", f"sha256:{number:064x}", "demo"))
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_of_writes_leaves_active_and_previous_that_belong_together(path):
    for round_number in range(3):
        path.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        acknowledged = 0
        for _ in range(5 + 7 * round_number):
            acknowledged = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().split("\n") if line)])
        child.wait()
        child.stdout.close()
        state = State.open(path)
        found = state.installed()["demo"]
        state.close()
        active = int(found.active.manifest[7:], 16)
        assert active in (acknowledged, acknowledged + 1)
        assert int(found.previous.manifest[7:], 16) == active - 1
