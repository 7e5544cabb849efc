"""Segments come home exactly once, whole, and only their own device's."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from columns import Columns, Schema, constant, encode_raw
from durable.frames import encode_frame
from fleet import wire
from tests.hub.running import EPOCH, Pusher, frame, rows_block, segment, small_bundle

NUMBERS = itertools.count()


def fresh() -> str:
    """A name that no device of a shared hub has."""
    return f"fresh-{next(NUMBERS)}"


def files(running) -> list:
    return [path for path in (running.config.data / "segments").rglob("*") if path.is_file()]


def test_a_segment_is_received_once_and_receipted_again(running):
    device = running.device()
    data = segment(0, 3, 2)
    first, again = device.upload(0, data), device.upload(0, data)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["rows"] == 5 and first.json()["device"] == device.id
    assert [row["metadata"]["seq"] for row in running.every_row()] == [0, 1, 2, 3, 4]


def test_a_row_carries_what_the_hub_knows_of_it(running):
    device = running.device()
    device.upload(7, segment(40, 1))
    (row,) = running.every_row()
    said = row["metadata"]
    assert (said["partition"], said["pipeline"], said["seq"], said["epoch"]) == ("press-1", "wine", 40, EPOCH)
    assert said["request_id"] == "r-40" and row["in"] == {"inputs": [10, 10, 10]} and row["out"] == {"label": 40}


def test_the_same_name_with_other_bytes_is_a_conflict(running):
    device = running.device()
    device.upload(0, segment(0, 3))
    answer = device.upload(0, segment(0, 4))
    assert answer.status_code == 409 and "came already as sha256:" in answer.json()["error"]
    assert len(running.every_row()) == 3 and len(files(running)) == 1


@pytest.mark.parametrize(
    ("number", "first", "headers"), [(1, 2, {}), (1, 0, {}), (5, 3, {wire.SEGMENT_PIPELINE: "beer"})]
)
def test_rows_that_came_in_another_segment_of_the_epoch_are_a_conflict(running, number, first, headers):
    device = running.device()
    device.upload(0, segment(0, 3))
    answer = device.upload(number, segment(first, 2), **headers)
    assert answer.status_code == 409 and "segment 0" in answer.json()["error"]
    assert len(running.every_row()) == 3


def test_gaps_and_late_segments_are_fine(running):
    device = running.device()
    assert device.upload(2, segment(100, 2) + segment(110, 2)).status_code == 201
    assert device.upload(0, segment(0, 2)).status_code == 201
    assert device.upload(0, segment(0, 2, epoch="f" * 16), epoch="f" * 16).status_code == 201
    assert [row["metadata"]["seq"] for row in running.every_row()] == [100, 101, 110, 111, 0, 1, 0, 1]


def test_duplicated_and_reordered_uploads_from_many_hands_keep_every_row_once(running):
    devices = [running.device(f"press-{number}") for number in range(3)]
    segments = [(device, number, segment(number * 10, 6, 4)) for device in devices for number in range(20)]
    chance = random.Random(7)
    sent = segments + chance.sample(segments, 30)
    chance.shuffle(sent)
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda each: each[0].upload(each[1], each[2]).status_code, sent))
    assert sorted(statuses) == [200] * 30 + [201] * 60
    rows = running.every_row(limit=97)
    assert len(rows) == 600
    assert len({(row["metadata"]["partition"], row["metadata"]["seq"]) for row in rows}) == 600


def bomb() -> Columns:
    """A million equal rows, stored once."""
    schema = Schema.parse({"time": "int64", "in.x": "float32"})
    arrays = {"time": np.zeros(1, np.int64), "in.x": np.zeros(1, np.float32)}
    return Columns(schema, {name: constant(array, 1_000_000) for name, array in arrays.items()}, 1_000_000)


def damaged() -> dict[str, bytes]:
    good = segment(0, 3, 2)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    block = b"".join(encode_raw(rows_block(0, 2)))
    strange = Columns.of(Schema.parse({"time": "int64", "evil": "int64"}), {"time": [1], "evil": [1]})
    twice = Columns.of(Schema.parse({"time": "int64", "metadata.seq": "int64"}), {"time": [1], "metadata.seq": [1]})
    return {
        "empty": b"",
        "not frames": b"x" * 100,
        "one flipped bit": bytes(flipped),
        "cut short": good[:-1],
        "something behind": good + b"\0",
        "of another epoch": segment(0, 3, epoch="0" * 16),
        "rows that go back": segment(5, 2) + segment(0, 2),
        "a block that is no block": encode_frame(EPOCH, 0, 1, b"hello") + b"hello",
        "a block cut short": encode_frame(EPOCH, 0, 2, block[:-8]) + block[:-8],
        "more rows than said": frame(0, 3, says=2),
        "rows out of nothing": frame(0, 1_000_000, block=bomb()),
        "a column no row has": frame(0, 1, block=strange),
        "a column that the hub adds": frame(0, 1, block=twice),
    }


@pytest.mark.parametrize("kind", damaged())
def test_a_damaged_segment_is_refused_and_nothing_is_kept(shared, kind):
    before, device = files(shared), shared.device(fresh())
    answer = device.upload(0, damaged()[kind])
    assert answer.status_code == 400 and "segment 0" in answer.json()["error"]
    assert files(shared) == before and shared.every_row(device=device.name) == []
    assert device.upload(0, segment(0, 3)).status_code == 201


def test_bytes_that_are_not_those_of_the_header_are_refused(running):
    answer = running.device().upload(0, segment(0, 3), **{wire.SEGMENT_DIGEST: "sha256:" + "0" * 64})
    assert answer.status_code == 400 and "another digest" in answer.json()["error"]
    assert files(running) == []


@pytest.mark.parametrize(
    ("headers", "status", "named"),
    [
        ({wire.SEGMENT_DIGEST: "md5:1"}, 400, wire.SEGMENT_DIGEST),
        ({wire.SEGMENT_PIPELINE: "Not a name"}, 400, wire.SEGMENT_PIPELINE),
        ({"Content-Type": "application/json"}, 415, wire.SEGMENT_TYPE),
    ],
)
def test_a_wrong_header_is_named(shared, headers, status, named):
    answer = shared.device(fresh()).upload(0, segment(0, 3), **headers)
    assert answer.status_code == status and named in answer.json()["error"]


@pytest.mark.parametrize(
    ("epoch", "number"), [("xyz", 0), (EPOCH, -1), (EPOCH.upper(), 0), (EPOCH, "1e3"), (EPOCH, 10**20)]
)
def test_a_wrong_name_is_refused(shared, epoch, number):
    assert shared.device(fresh()).upload(number, segment(0, 3), epoch=epoch).status_code == 400


def test_a_device_writes_its_own_segments_only(running):
    mine, other = running.device("press-1"), running.device("press-2")
    mine.headers, other.headers = other.headers, mine.headers
    answer = mine.upload(0, segment(0, 3))
    assert answer.status_code == 403 and files(running) == []
    mine.headers = running.admin
    assert mine.upload(0, segment(0, 3)).status_code == 403


def test_a_segment_that_is_too_large_is_refused(tmp_path, clock):
    from tests.hub.running import RunningHub

    running = RunningHub(tmp_path / "hub", clock, segment_limit=1000)
    try:
        answer = running.device().upload(0, segment(0, 100))
        assert answer.status_code == 413 and files(running) == []
        whole = segment(0, 100)
        chunked = running.device("press-2").upload(0, whole)
        assert chunked.status_code == 413
    finally:
        running.close()


def test_random_damage_never_breaks_the_hub_nor_the_log(running):
    device = running.device()
    good = segment(0, 3, 2)
    chance = np.random.default_rng(5)
    for number in range(60):
        data = bytearray(good)
        for _ in range(int(chance.integers(1, 5))):
            data[int(chance.integers(len(data)))] = int(chance.integers(256))
        status = device.upload(number, bytes(data)).status_code
        assert status == 400 or bytes(data) == good
    assert device.upload(1000, good).status_code == 201
    assert len(running.every_row()) == 5


def test_segments_may_come_for_a_pipeline_the_hub_does_not_have(running, tmp_path):
    """An image with a bundle baked in logs before anything was published."""
    assert running.device().upload(0, segment(0, 1)).status_code == 201
    assert Pusher(running).publish(small_bundle(tmp_path / "b", "other")).status_code == 201
