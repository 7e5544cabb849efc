"""The spool: each answered row is in the log as its policy says, goes home once, and no loss is silent."""

import errno
import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.pipeline import LogPolicy
from columns import Columns, Schema, constant, decode_raw
from durable.frames import read_frames
from durable.segment_log import Gap
from edge_agent.inference_log.long_values import without_long_values
from edge_agent.inference_log.spool import _WINDOW_S, Spool
from edgepack.errors import BadInput, Unreachable
from tests.edge_agent.served import until
from tests.fakes.disk import ForgetfulDisk, MemoryDisk, Refusal

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = Path("/data/spool/wine")
COMMIT, RELAXED, OFF = LogPolicy(), LogPolicy(durability="relaxed"), LogPolicy(durability="off")
RESULT = Schema.parse(
    {
        "time": "int64",
        "in.inputs": "list<float32>[13]",
        "out.label": "string",
        "anomaly.count": "uint32",
        "metadata.last_model": "string",
    }
)


def result(rows: int = 1, label: str = "ok", first: int = 0) -> Columns:
    return Columns.of(
        RESULT,
        {
            "time": np.arange(first, first + rows, dtype=np.int64),
            "in.inputs": np.full((rows, 13), first, dtype=np.float32),
            "out.label": [label] * rows,
            "anomaly.count": np.zeros(rows, dtype=np.uint32),
            "metadata.last_model": ['{"model": "wine"}'] * rows,
        },
    )


def times(spool: Spool, **page: int) -> list[int]:
    return [moment for block in spool.rows(**page) for moment in block["time"].tolist()]


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        yield spool


def a_spool(disk: MemoryDisk, policy: LogPolicy = COMMIT) -> Spool:
    return Spool(FOLDER, policy, "line-4", disk=disk)


# What a row is


def test_a_row_comes_back_as_it_was_answered_with_what_the_log_adds(spool):
    answered = result(2, first=7)
    assert spool.record(answered, "request-1", bundle="sha256:ab") == 1
    assert spool.record(result(first=9), "request-2") == 3
    block = next(spool.rows())
    for name in RESULT.names:
        assert block[name].tolist() == answered[name].tolist()
        assert block.schema[name] == RESULT[name]
    assert block["metadata.seq"].tolist() == [1, 2]
    assert block["metadata.seq"].dtype == np.int64
    added = {
        "epoch": spool.epoch,
        "request_id": "request-1",
        "pipeline": "wine",
        "partition": "line-4",
        "bundle": "sha256:ab",
    }
    for name, text in added.items():
        assert block[f"metadata.{name}"].tolist() == [text, text]
    assert times(spool) == [7, 8, 9]


def test_a_partition_that_the_row_has_is_kept(spool):
    named = Columns.of(
        Schema.parse({"time": "int64", "metadata.partition": "string"}),
        {
            "time": [1],
            "metadata.partition": ["other"],
        },
    )
    spool.record(named)
    assert next(spool.rows())["metadata.partition"].tolist() == ["other"]


def test_rows_are_paged_by_sequence_and_limit(spool):
    for first in range(0, 12, 3):
        spool.record(result(3, first=first))
        if first == 3:
            spool.seal()
    assert times(spool, limit=4) == [0, 1, 2, 3]
    assert times(spool, after_seq=0) == list(range(12))
    assert times(spool, after_seq=4, limit=4) == [4, 5, 6, 7]
    assert times(spool, after_seq=11) == [11]
    assert times(spool, after_seq=12) == []
    assert times(spool, limit=0) == []


def test_a_segment_is_what_the_hub_reads(spool):
    spool.record(result(2), "request-1")
    segment = spool.seal()
    frames = list(read_frames(segment.path.read_bytes(), spool.epoch))
    block = decode_raw(frames[0].payload)
    assert block.rows == frames[0].rows == segment.rows == 2
    assert "metadata.request_id" in block.schema
    assert not {"metadata.seq", "metadata.epoch"} & set(block.schema.names)


# Policies


def test_a_committed_row_is_synced_before_record_returns():
    disk = MemoryDisk()
    spool = a_spool(disk)
    for first in range(3):
        spool.record(result(first=first))
        for state in disk.crash_states(random.Random(first), 15):
            assert times(a_spool(state)) == list(range(first + 1))


def test_a_spool_on_a_disk_that_does_not_sync_is_caught():
    disk = ForgetfulDisk(forgets="sync")
    a_spool(disk).record(result())
    assert [] in [times(a_spool(state)) for state in disk.crash_states(random.Random(1), 10)]


def is_in_window() -> bool:
    """Whether the thread that is here is the one that syncs relaxed rows."""
    return threading.current_thread().name == f"sync-{FOLDER.name}"


def test_a_relaxed_row_is_written_at_once_and_synced_within_a_second():
    assert _WINDOW_S < 1
    disk, go_on, synced = MemoryDisk(), threading.Event(), threading.Event()
    disk.before = lambda action, name: is_in_window() and go_on.wait(60)
    disk.after = lambda action: action == "sync" and is_in_window() and synced.set()
    with a_spool(disk, RELAXED) as spool:
        spool.record(result())
        nothing_persisted = next(disk.crash_states(random.Random(1), 2))
        assert times(a_spool(nothing_persisted)) == []
        go_on.set()
        assert synced.wait(30)
        nothing_persisted = next(disk.crash_states(random.Random(1), 2))
        assert times(a_spool(nothing_persisted)) == [0]


def test_a_relaxed_row_that_was_read_is_durable():
    disk = MemoryDisk()
    with a_spool(disk, RELAXED) as spool:
        spool.record(result())
        assert times(spool) == [0]
        assert times(a_spool(next(disk.crash_states(random.Random(1), 2)))) == [0]


def test_a_failed_sync_in_the_window_is_counted_and_the_rows_are_saved():
    disk = MemoryDisk()
    refuse = Refusal({"sync"}, 1, errno.EIO)
    disk.before = lambda action, name: is_in_window() and refuse(action, name)
    with a_spool(disk, RELAXED) as spool:
        spool.record(result())
        until(lambda: spool.stats()["sync_failures"] == 1)
        assert times(a_spool(next(disk.crash_states(random.Random(1), 2)))) == [0]
        spool.record(result(first=1))
        assert times(spool) == [0, 1]


def test_with_the_log_off_nothing_is_written(tmp_path):
    with Spool(tmp_path / "wine", OFF, "line-4") as spool:
        assert spool.record(result(), "request") is None
        assert list(spool.rows()) == []
        assert (spool.epoch, spool.sealed(), spool.seal(), spool.gaps) == ("", [], None, [])
        assert spool.stats()["rows"] == 0
    assert not (tmp_path / "wine").exists()


def test_rows_of_an_earlier_policy_still_go_home_with_the_log_off(tmp_path):
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        spool.record(result())
    with Spool(tmp_path / "wine", OFF, "line-4") as spool:
        assert len(spool.sealed()) == 1
        assert spool.record(result()) is None
        spool.change_policy(COMMIT)
        assert spool.record(result(first=1)) == 2
        assert times(spool) == [0, 1]


def test_a_spool_of_old_rows_leads_on_with_its_epoch(tmp_path):
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        spool.record(result())
        epoch = spool.epoch
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        assert spool.epoch == epoch
        assert spool.record(result(first=1)) == 2
        assert times(spool) == [0, 1]


# Limits

SMALL = LogPolicy(max_bytes="64Ki")


def test_the_oldest_rows_make_room_and_the_gap_is_on_record(tmp_path):
    with Spool(tmp_path / "wine", SMALL, "line-4") as spool:
        for first in range(300):
            spool.record(result(first=first))
        kept = times(spool)
        dropped = spool.gaps
        assert len(dropped) == 1
        assert dropped[0] == Gap(1, 300 - len(kept), 300 - len(kept), "full")
        assert kept == list(range(300 - len(kept), 300))
        stats = spool.stats()
        assert stats["bytes"] <= 65536
        assert stats["dropped_rows"] + stats["rows"] == 300
        assert stats["oldest_seq"] == dropped[0].to_seq + 1
    with Spool(tmp_path / "wine", SMALL, "line-4") as spool:
        assert spool.gaps == dropped


def test_a_full_spool_that_may_not_drop_refuses_and_takes_rows_again_after_a_receipt(tmp_path):
    policy = LogPolicy(max_bytes="64Ki", when_full="reject")
    with Spool(tmp_path / "wine", policy, "line-4") as spool:
        taken = 0
        with pytest.raises(Unreachable, match="is full") as refused:
            for taken in range(1000):
                spool.record(result(first=taken))
        assert refused.value.retry_after_s
        assert times(spool) == list(range(taken))
        assert spool.gaps == []
        spool.confirm(spool.sealed()[0].number)
        spool.record(result(first=taken))
        assert times(spool)[-1] == taken
        assert spool.gaps == []


def test_confirmed_rows_stay_readable_until_their_room_is_needed(tmp_path):
    with Spool(tmp_path / "wine", SMALL, "line-4") as spool:
        spool.record(result())
        segment = spool.seal()
        assert spool.sealed() == [segment]
        spool.confirm(segment.number)
        assert spool.sealed() == []
        assert times(spool) == [0]
    with Spool(tmp_path / "wine", SMALL, "line-4") as spool:
        assert spool.sealed() == []
        for first in range(1, 300):
            spool.record(result(first=first))
        assert spool.gaps[0].from_seq == 2  # row 1 went silently: the hub has it


def test_a_segment_is_sealed_when_it_is_old_enough(spool):
    spool.record(result())
    assert spool.seal(older_than_s=30) is None
    assert spool.seal(older_than_s=0).rows == 1
    assert spool.seal() is None


def test_damage_in_a_segment_is_cut_out_before_it_goes_home(tmp_path):
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        for first in range(5):
            spool.record(result(first=first))
        path = spool.seal().path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        segment = spool.sealed()[0]
        assert segment.rows == 4
        assert len(list(read_frames(segment.path.read_bytes(), spool.epoch))) == 4
        assert [gap.reason for gap in spool.gaps] == ["damaged"]
        assert spool.stats()["dropped_rows"] == 1


# Long values


def test_a_long_tensor_is_logged_as_its_digest(tmp_path):
    image = np.arange(20_000, dtype=np.float32).reshape(2, 10_000)
    schema = Schema.parse({"time": "int64", "in.image": "list<float32>[10000]", "out.y": "float32"})
    answered = Columns.of(schema, {"time": [1, 2], "in.image": image, "out.y": [0.5, 0.25]})
    with Spool(tmp_path / "wine", LogPolicy(max_value_bytes=39_999), "line-4") as spool:
        spool.record(answered)
        block = next(spool.rows())
        assert block["in.image"].tolist() == [
            {"sha256": hashlib.sha256(row.tobytes()).hexdigest(), "bytes": 40_000} for row in image
        ]
        assert block["out.y"].tolist() == [0.5, 0.25]
        assert answered["in.image"] is image  # the answer itself is whole
    with Spool(tmp_path / "wine", LogPolicy(max_value_bytes=0), "line-4") as spool:
        spool.record(answered)
        assert np.array_equal(list(spool.rows())[-1]["in.image"], image)


def test_only_the_rows_whose_text_is_long_lose_it():
    schema = Schema.parse({"time": "int64", "in.text": "string", "metadata.last_model": "string"})
    texts = ["short", "long " * 10, "ä" * 11, "ä" * 10, "", "long " * 9]
    answered = Columns.of(schema, {"time": list(range(6)), "in.text": texts, "metadata.last_model": ["x" * 100] * 6})
    parts = without_long_values(answered, 20)
    assert [part["time"].tolist() for part in parts] == [[0], [1, 2], [3, 4], [5]]
    assert parts[0]["in.text"].tolist() == ["short"]
    assert [value["bytes"] for value in parts[1]["in.text"]] == [50, 22]
    assert parts[1]["in.text"][0]["sha256"] == hashlib.sha256(texts[1].encode()).hexdigest()
    assert parts[2]["in.text"].tolist() == ["ä" * 10, ""]
    assert parts[0]["metadata.last_model"].tolist() == ["x" * 100]


@pytest.mark.parametrize(
    ("type_", "short", "long"),
    [
        ("binary", b"abc", b"x" * 50),
        ("list<int64>", [1, 2], list(range(50))),
        ("list<string>", ["a"], ["abc"] * 20),
        ("struct<a: float32, b: string?>", {"a": 1.0, "b": None}, {"a": 1.0, "b": "x" * 50}),
        ("string?", None, "x" * 50),
        ("timestamp[ms]", "2030-01-01T00:00:00", None),
    ],
)
def test_long_values_of_every_kind_are_shortened(tmp_path, type_, short, long):
    values = [short, short] if long is None else [short, long]
    answered = Columns.of(Schema.parse({"in.x": type_}), {"in.x": values})
    with Spool(tmp_path / "wine", LogPolicy(max_value_bytes=30), "line-4") as spool:
        spool.record(answered)
        rows = [value for block in spool.rows() for value in block["in.x"].tolist()]
    assert rows[0] == answered["in.x"].tolist()[0]
    assert long is None or set(rows[1]) == {"sha256", "bytes"}


def test_a_long_value_that_is_the_same_in_each_row_is_digested_once():
    shared = constant(np.zeros((1, 1000), dtype=np.float64), 3)
    answered = Columns.of(Schema.parse({"in.x": "list<float64>"}), {"in.x": shared})
    (part,) = without_long_values(answered, 100)
    assert part["in.x"].strides == (0,)
    assert part["in.x"][2]["bytes"] == 8000


# Faults and company


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("nth", range(1, 12))
def test_a_refusing_disk_is_an_error_for_that_request_and_the_next_works(code, nth):
    disk = MemoryDisk()
    spool = Spool(FOLDER, LogPolicy(max_bytes="8Ki"), "line-4", disk=disk)
    disk.before = Refusal({"create", "preallocate", "write", "sync", "sync_folder", "truncate", "rename"}, nth, code)
    answered = []
    for first in range(12):
        try:
            spool.record(result(first=first))
            answered.append(first)
        except Unreachable as error:
            assert "try again" in str(error)
            assert error.retry_after_s
    assert len(answered) >= 11
    lost = sum(gap.rows for gap in spool.gaps)
    assert times(spool) == answered[lost:]
    for state in disk.crash_states(random.Random(nth), 6):
        again = Spool(FOLDER, LogPolicy(max_bytes="8Ki"), "line-4", disk=state)
        assert times(again)[-1] == 11
        assert set(answered[lost:]) <= set(times(again))


def test_a_log_says_that_it_refuses_until_it_takes_a_row_again():
    disk = MemoryDisk()
    spool = Spool(FOLDER, COMMIT, "line-4", disk=disk)
    assert spool.refuses is None
    disk.before = Refusal({"create", "preallocate", "write"}, 1, errno.ENOSPC)
    with pytest.raises(Unreachable):
        spool.record(result())
    assert "could not take a row" in str(spool.refuses)
    spool.record(result())
    assert spool.refuses is None


def test_a_second_process_does_not_get_the_spool(tmp_path):
    code = (
        "import sys; from pathlib import Path; from bundle.pipeline import LogPolicy; "
        "from edge_agent.inference_log.spool import Spool; Spool(Path(sys.argv[1]), LogPolicy(), 'p')"
    )
    with Spool(tmp_path / "wine", COMMIT, "line-4") as spool:
        with pytest.raises(BadInput, match="is in use by process"):
            Spool(tmp_path / "wine", COMMIT, "line-4")
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "wine")], cwd=CHECKOUT, capture_output=True, text=True
        )
        assert "is in use by process" in second.stderr
        spool.record(result())
        assert times(spool) == [0]


def test_a_closed_spool_refuses_rows(tmp_path):
    spool = Spool(tmp_path / "wine", COMMIT, "line-4")
    spool.record(result())
    spool.close()
    spool.close()
    with pytest.raises(Unreachable, match="is closed"):
        spool.record(result())


class Company:
    """Threads that use one spool at once; a fault in any of them is kept."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.done = threading.Event()
        self.faults: list[BaseException] = []
        self.seqs: list[int] = []

    def start(self, work: Callable[..., None], *given: int) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(work, *given))
        thread.start()
        return thread

    def _guarded(self, work: Callable[..., None], *given: int) -> None:
        try:
            work(*given)
        except BaseException as error:
            self.faults.append(error)

    def record(self, index: int) -> None:
        for turn in range(40):
            self.seqs.append(self.spool.record(result(first=index * 100 + turn), f"{index}-{turn}"))

    def read(self) -> None:
        while not self.done.is_set():
            seen = [seq for block in self.spool.rows() for seq in block["metadata.seq"].tolist()]
            assert seen == sorted(set(seen))

    def send(self) -> None:
        while not self.done.is_set():
            self.spool.seal(older_than_s=0.01)
            for segment in self.spool.sealed():
                assert list(read_frames(segment.path.read_bytes(), self.spool.epoch))
                self.spool.confirm(segment.number)
            time.sleep(0.005)


def test_many_threads_record_while_others_read_seal_and_confirm(tmp_path):
    with Spool(tmp_path / "wine", LogPolicy(max_bytes="2Mi"), "line-4") as spool:
        company = Company(spool)
        readers = [company.start(company.read), company.start(company.send)]
        writers = [company.start(company.record, index) for index in range(6)]
        for thread in writers:
            thread.join(60)
        company.done.set()
        for thread in readers:
            thread.join(60)
        assert company.faults == []
        assert sorted(company.seqs) == list(range(1, 241))
        assert sorted(times(spool)) == sorted(index * 100 + turn for index in range(6) for turn in range(40))


def test_a_group_of_small_rows_is_no_row_too_large_for_a_small_spool(tmp_path):
    with Spool(tmp_path / "wine", LogPolicy(max_bytes="16Ki"), "line-4") as spool:
        company = Company(spool)
        for thread in [company.start(company.record, index) for index in range(8)]:
            thread.join(60)
        assert company.faults == []
        assert {gap.reason for gap in spool.gaps} == {"full"}
