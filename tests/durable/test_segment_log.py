"""The segment log: rows come back in order, numbers never go back, limits hold, a refusing disk is never believed."""

import errno
import random
from pathlib import Path

import pytest

from durable.frames import read_frames
from durable.segment_log import Frame, Gap, LogFull, LogStopped, SegmentLog
from edgepack.errors import BadInput
from tests.fakes.disk import MemoryDisk, Refusal
from tests.fakes.log_history import FOLDER, History

CHANGES = {"create", "write", "preallocate", "truncate", "sync", "rename", "unlink", "sync_folder"}


def everything(log: SegmentLog) -> list[Frame]:
    return [frame for segment in log.segments() for frame in log.read(segment.number)]


def append(log: SegmentLog, text: str, rows: int = 1) -> int:
    return log.append([(text.encode(), rows)], sync=True)


# Rows and segments


def test_rows_come_back_in_order_with_their_sequences(tmp_path):
    log = SegmentLog.open(tmp_path / "log")
    assert append(log, "a", 3) == 1
    assert log.append([(b"b", 1), (b"c", 2)], sync=False) == 4
    assert everything(log) == [Frame(1, 3, b"a"), Frame(4, 1, b"b"), Frame(5, 2, b"c")]
    log.close()
    again = SegmentLog.open(tmp_path / "log")
    assert everything(again) == [Frame(1, 3, b"a"), Frame(4, 1, b"b"), Frame(5, 2, b"c")]
    assert again.epoch == log.epoch
    assert append(again, "d") == 7


def test_a_sealed_segment_is_exactly_the_bytes_of_its_frames(tmp_path):
    log = SegmentLog.open(tmp_path / "log")
    append(log, "a", 2)
    append(log, "b")
    open_segment = log.segments()[0]
    assert not open_segment.sealed
    assert open_segment.path.stat().st_size == 8 << 20  # room set aside
    sealed = log.seal()
    assert sealed is not None and sealed.sealed and not sealed.confirmed
    assert (sealed.number, sealed.first_seq, sealed.end_seq, sealed.rows) == (1, 1, 4, 3)
    data = sealed.path.read_bytes()
    assert len(data) == sealed.size
    assert list(read_frames(data, log.epoch)) == [Frame(1, 2, b"a"), Frame(3, 1, b"b")]
    assert log.contents(1) == data


def test_nothing_is_sealed_where_there_is_nothing_or_it_is_too_young(tmp_path):
    log = SegmentLog.open(tmp_path / "log")
    assert log.seal() is None
    append(log, "a")
    assert log.seal(older_than_s=60) is None
    assert log.seal() is not None
    assert log.seal() is None


def test_a_full_segment_is_sealed_and_the_next_goes_on(tmp_path):
    log = SegmentLog.open(tmp_path / "log", segment_bytes=1000)
    for index in range(10):
        append(log, f"{index}" * 300)
    assert [segment.rows for segment in log.segments()] == [3, 3, 3, 1]
    assert [segment.sealed for segment in log.segments()] == [True, True, True, False]
    assert [frame.first_seq for frame in everything(log)] == list(range(1, 11))


def test_a_row_larger_than_a_segment_gets_one_of_its_own(tmp_path):
    log = SegmentLog.open(tmp_path / "log", segment_bytes=1000)
    append(log, "small")
    append(log, "x" * 5000)
    append(log, "small again")
    assert [segment.rows for segment in log.segments()] == [1, 1, 1]
    assert len(everything(log)[1].payload) == 5000


def test_a_closed_log_takes_no_row(tmp_path):
    log = SegmentLog.open(tmp_path / "log")
    log.close()
    log.close()
    with pytest.raises(LogStopped, match="is closed"):
        append(log, "a")


def test_two_epochs_in_one_folder_are_for_a_person_to_sort_out(tmp_path):
    for epoch in ("0" * 16, "1" * 16):
        (tmp_path / epoch).mkdir()
    with pytest.raises(BadInput, match="has 2 epochs"):
        SegmentLog.open(tmp_path)


def test_a_foreign_file_in_the_folder_is_left_alone(tmp_path):
    log = SegmentLog.open(tmp_path)
    append(log, "a")
    log.close()
    (tmp_path / log.epoch / "notes.txt").write_text("mine")
    assert len(everything(SegmentLog.open(tmp_path))) == 1
    assert (tmp_path / log.epoch / "notes.txt").read_text() == "mine"


# Letting go


def test_numbers_and_sequences_never_go_back_though_all_rows_are_gone(tmp_path):
    seen_numbers, seen_seqs = [], []
    for _ in range(4):
        log = SegmentLog.open(tmp_path)
        seen_seqs.append(append(log, "a"))
        sealed = log.seal()
        seen_numbers.append(sealed.number)
        log.drop(sealed.number)
        log.close()
        SegmentLog.open(tmp_path).close()
    assert seen_seqs == [1, 2, 3, 4]
    assert seen_numbers == sorted(set(seen_numbers))
    assert SegmentLog.open(tmp_path).gaps == []


def test_confirmed_segments_go_first_and_silently(tmp_path):
    log = SegmentLog.open(tmp_path, segment_bytes=500, max_bytes=2200, drop_oldest=True)
    for index in range(8):  # four segments
        append(log, f"{index}" * 200)
    log.confirm(2)
    log.confirm(2)
    for index in range(2):
        append(log, f"{index}" * 200)
    assert [segment.number for segment in log.segments()] == [1, 3, 4, 5]
    assert log.gaps == []
    for index in range(4):
        append(log, f"{index}" * 200)
    assert log.segments()[0].number == 4
    assert log.gaps == [Gap(1, 2, 2, "full"), Gap(5, 6, 2, "full")]
    assert log.size_bytes <= 2200
    log.close()
    again = SegmentLog.open(tmp_path)
    assert again.gaps == log.gaps
    assert next(each.path for each in again.segments()).name.endswith(".sealed")


def test_neighbouring_gaps_become_one_record(tmp_path):
    log = SegmentLog.open(tmp_path, segment_bytes=500, max_bytes=1600, drop_oldest=True)
    for _ in range(60):
        append(log, "x" * 200)
    assert log.gaps == [Gap(1, 54, 54, "full")]
    assert len([path for path in (tmp_path / log.epoch).iterdir() if path.suffix == ".gap"]) == 1
    log.close()
    assert SegmentLog.open(tmp_path).gaps == [Gap(1, 54, 54, "full")]


def test_a_full_log_that_may_not_drop_refuses_until_there_is_room(tmp_path):
    log = SegmentLog.open(tmp_path, segment_bytes=500, max_bytes=1600)
    with pytest.raises(LogFull, match="is full"):
        for _ in range(60):
            append(log, "x" * 200)
    kept = everything(log)
    assert len(kept) == 6
    log.confirm(1)
    assert append(log, "again") == kept[-1].end_seq
    assert log.gaps == []
    assert everything(log)[:-1] == kept[2:]


def test_rows_larger_than_the_whole_log_leave_a_gap_or_are_refused(tmp_path):
    log = SegmentLog.open(tmp_path / "drops", segment_bytes=500, max_bytes=1600, drop_oldest=True)
    append(log, "a")
    append(log, "x" * 2000, rows=7)
    append(log, "b")
    assert log.gaps == [Gap(2, 8, 7, "too-large")]
    assert [frame.first_seq for frame in everything(log)] == [1, 9]
    log = SegmentLog.open(tmp_path / "rejects", segment_bytes=500, max_bytes=1600)
    with pytest.raises(LogFull):
        append(log, "x" * 2000)
    append(log, "b")


def test_a_segment_that_is_dropped_while_it_is_read_ends_the_reading(tmp_path):
    log = SegmentLog.open(tmp_path)
    append(log, "a")
    number = log.seal().number
    reading = log.read(number)
    log.drop(number, "full")
    assert list(reading) == []
    assert log.contents(number) == b""
    assert log.gaps == [Gap(1, 1, 1, "full")]


# Damage


def test_damage_in_a_sealed_segment_costs_its_frame_and_is_recorded(tmp_path):
    log = SegmentLog.open(tmp_path)
    for text in "abcd":
        append(log, text * 100, rows=2)
    path = log.seal().path
    log.close()
    data = bytearray(path.read_bytes())
    data[124 + 60] ^= 4  # the second frame's payload
    path.write_bytes(data)
    log = SegmentLog.open(tmp_path)
    assert [frame.first_seq for frame in everything(log)] == [1, 5, 7]
    assert log.gaps == [Gap(3, 4, 2, "damaged")]
    segment = log.segments()[0]
    assert segment.rows == 6
    assert list(read_frames(segment.path.read_bytes(), log.epoch)) == everything(log)
    log.close()
    assert SegmentLog.open(tmp_path).gaps == [Gap(3, 4, 2, "damaged")]


def test_a_hole_in_what_a_crash_left_open_is_recorded(tmp_path):
    log = SegmentLog.open(tmp_path)
    for text in "abc":
        append(log, text * 100, rows=2)
    path = log.segments()[0].path
    data = bytearray(path.read_bytes())
    data[124 + 60] ^= 4
    path.write_bytes(data)
    log = SegmentLog.open(tmp_path)  # as after a kill
    assert [frame.first_seq for frame in everything(log)] == [1, 5]
    assert log.gaps == [Gap(3, 4, 2, "damaged")]
    assert [(each.rows, each.state, each.size) for each in log.segments()] == [(4, "sealed", 248)]
    assert append(log, "next") == 7


def test_a_segment_that_is_damaged_throughout_becomes_a_gap(tmp_path):
    log = SegmentLog.open(tmp_path)
    append(log, "a", rows=5)
    segment = log.seal()
    segment.path.write_bytes(bytes(segment.size))
    assert log.contents(segment.number) == b""
    assert log.segments() == []
    assert log.gaps == [Gap(1, 5, 5, "damaged")]


def test_mutated_segments_never_show_a_wrong_row_nor_stop_the_log(tmp_path):
    rng = random.Random(5)
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=800, disk=disk)
    offered = {}
    for _ in range(12):
        payload = rng.randbytes(rng.randint(0, 200))
        offered[append_raw(log, payload)] = payload
    files = {each.path: disk.read(each.path) for each in log.segments()}
    for _ in range(2000):
        path = rng.choice(list(files))
        state = next(disk.crash_states(rng, 1))
        damage(state, path, files[path], rng)
        opened = SegmentLog.open(FOLDER, segment_bytes=800, disk=state)
        found = {frame.first_seq: frame.payload for frame in everything(opened)}
        assert found.items() <= offered.items()
        whole = {seq for seq in offered if segment_of(log, seq) != path}
        assert whole <= set(found)
        if path.suffix == ".sealed":
            lost = {seq for gap in opened.gaps for seq in range(gap.from_seq, gap.to_seq + 1)}
            assert set(found) | lost == set(offered)
        append(opened, "works on")
        assert all(opened.contents(each.number) for each in opened.segments() if each.sealed)


def append_raw(log: SegmentLog, payload: bytes) -> int:
    return log.append([(payload, 1)], sync=True)


def segment_of(log: SegmentLog, seq: int) -> Path:
    return next(each.path for each in log.segments() if each.first_seq <= seq < each.end_seq)


def damage(disk: MemoryDisk, path: Path, data: bytes, rng: random.Random) -> None:
    handle = disk.open(path)
    for _ in range(rng.randint(1, 4)):
        disk.write(handle, rng.randrange(len(data)), rng.randbytes(rng.choice([1, 1, 4, 40])))
    if rng.random() < 0.3:
        disk.truncate(handle, rng.randrange(len(data)))
    disk.sync(handle)
    disk.close(handle)


# A disk that refuses


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_refusal_at_any_call_is_answered_and_outlived(code, lasting):
    """Every call of a piece of work is refused once (and from then on for a while): nothing promised is lost."""
    counting = Refusal(CHANGES, 0, code)
    work(counting, lasting=False)
    assert counting.calls > 150
    refused = 0
    for nth in range(1, counting.calls, 2 if lasting else 1):
        refused += work(Refusal(CHANGES, nth, code, lasting=lasting), lasting=lasting).refusals
    assert refused > 50


def work(refusal: Refusal, *, lasting: bool) -> History:
    disk = MemoryDisk()
    history = History(disk, random.Random(11), max_bytes=4000)
    disk.before = refusal
    history.work(60)
    disk.before = lambda action, name: None  # there is room again, the disk is well
    if history.closed:
        history._restart()
    history.append_synced()
    readable = {frame.first_seq for frame in everything(history.log)}
    lost = {seq for gap in history.log.gaps for seq in range(gap.from_seq, gap.to_seq + 1)}
    assert history.promised <= readable | lost | history._home()
    assert not any(gap.reason == "damaged" for gap in history.log.gaps)
    for state in disk.crash_states(random.Random(1), 3):
        history.judge(state)
    return history


def test_after_a_failed_sync_nothing_is_acknowledged_and_that_file_is_never_synced_again():
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=4096, disk=disk)
    append(log, "kept")
    failed = log.segments()[0].number
    disk.before = Refusal({"sync"}, 1, errno.EIO)
    with pytest.raises(LogStopped, match="could not take a row"):
        append(log, "refused", rows=3)
    assert [frame.payload for frame in everything(log)] == [b"kept"]
    saved = log.segments()[0]
    assert (saved.number, saved.state) == (failed, "sealed")  # copied to a fresh file
    assert append(log, "next") == 5  # the refused rows' sequences are not given again
    assert log.segments()[1].number == failed + 1
    for state in disk.crash_states(random.Random(1), 20):
        assert [f.payload for f in everything(SegmentLog.open(FOLDER, disk=state))] == [b"kept", b"next"]


def test_written_rows_outlive_a_failed_sync_while_the_process_lives():
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=4096, disk=disk)
    log.append([(b"answered", 1)], sync=False)
    disk.before = Refusal({"sync"}, 1, errno.EIO)
    with pytest.raises(LogStopped):
        log.sync()
    assert [frame.payload for frame in everything(log)] == [b"answered"]
    for state in disk.crash_states(random.Random(1), 20):
        assert [f.payload for f in everything(SegmentLog.open(FOLDER, disk=state))] == [b"answered"]


def test_a_file_whose_sync_failed_is_not_believed_by_the_next_process_either():
    """The pages look clean after a failed sync, and reading them gives what was written: only a copy is durable."""
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=4096, disk=disk)
    append(log, "kept")
    log.append([(b"answered" * 200, 1)], sync=False)
    disk.before = Refusal({"sync", "create"}, 1, errno.EIO, lasting=True)
    with pytest.raises(LogStopped):
        log.sync()
    disk.before = lambda action, name: None
    again = SegmentLog.open(FOLDER, segment_bytes=4096, disk=disk)  # killed and started, the power stayed on
    assert len(everything(again)) == 2
    for state in disk.crash_states(random.Random(1), 10):
        assert everything(SegmentLog.open(FOLDER, segment_bytes=4096, disk=state)) == everything(again)


def test_a_disk_that_stays_bad_keeps_what_is_there_readable_and_recovers_later():
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=4096, disk=disk)
    append(log, "kept")
    disk.before = Refusal(CHANGES, 1, errno.EIO, lasting=True)
    for _ in range(3):
        with pytest.raises(LogStopped):
            append(log, "refused")
    with pytest.raises(LogStopped, match="could not be sealed"):
        log.seal()
    assert [frame.payload for frame in everything(log)] == [b"kept"]
    disk.before = lambda action, name: None
    append(log, "next")
    log.close()
    assert disk.open_handles == 0
    assert all(segment.sealed for segment in log.segments())
    assert [frame.payload for frame in everything(SegmentLog.open(FOLDER, disk=disk))] == [b"kept", b"next"]


def test_a_full_disk_gives_up_the_oldest_where_it_may():
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=500, max_bytes=5000, drop_oldest=True, disk=disk)
    for _ in range(6):
        append(log, "x" * 200)
    disk.before = Refusal({"preallocate"}, 1, errno.ENOSPC)
    append(log, "y" * 200)
    assert log.gaps == [Gap(1, 2, 2, "full")]
    assert disk.open_handles == 1


def test_a_full_disk_is_an_error_where_nothing_may_go_and_passes_by_itself():
    disk = MemoryDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=500, max_bytes=5000, disk=disk)
    for _ in range(2):
        append(log, "x" * 200)
    disk.before = Refusal({"preallocate", "write"}, 1, errno.ENOSPC, lasting=True)
    for _ in range(3):
        with pytest.raises(LogStopped, match="refused by the test"):
            append(log, "y" * 200)
    disk.before = lambda action, name: None
    append(log, "z")
    assert [frame.payload[:1] for frame in everything(log)] == [b"x", b"x", b"z"]
