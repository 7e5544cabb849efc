"""Frames survive torn tails and flipped bytes: no wrong row, neighbours kept, no other error than ours."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable.frames import FRAME_OVERHEAD, MAGIC, Frame, encode_frame, read_frames, scan_frames
from edgepack.errors import BadInput

EPOCH = "0123456789abcdef"


def segment(frames: list[Frame], epoch: str = EPOCH) -> bytes:
    return b"".join(encode_frame(epoch, f.first_seq, f.rows, f.payload) + f.payload for f in frames)


def some_frames(rng: random.Random, count: int) -> list[Frame]:
    frames, seq = [], rng.randint(1, 1000)
    for _ in range(count):
        frames.append(Frame(seq, rng.randint(1, 5), rng.randbytes(rng.choice([0, 1, 30, 200]))))
        seq = frames[-1].end_seq
    return frames


frame_lists = st.builds(lambda seed, count: some_frames(random.Random(seed), count), st.integers(), st.integers(0, 12))


@given(frame_lists)
@settings(max_examples=50, deadline=None)
def test_what_was_written_is_read(frames):
    assert list(read_frames(segment(frames), EPOCH)) == frames


@given(frame_lists, st.integers(0, 4000))
@settings(max_examples=100, deadline=None)
def test_a_torn_tail_costs_only_the_frame_that_was_torn(frames, cut):
    data = segment(frames)
    for torn in (data[:cut], data[:cut] + bytes(4096)):  # room that was set aside reads as zeros
        whole, start = [], 0
        for frame in frames:
            end = start + FRAME_OVERHEAD + len(frame.payload)
            if torn[start:end] == data[start:end]:
                whole.append(frame)
            start = end
        assert [frame for _, frame in scan_frames(torn, EPOCH)] == whole


def mutate(data: bytearray, rng: random.Random) -> set[int]:
    """Change, swap or overwrite up to eight bytes in place; returns where."""
    places = set()
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
            places.add(at)
        elif kind == 1:
            data[at] = rng.randrange(256)
            places.add(at)
        else:
            word = rng.choice([b"\xff\xff\xff\xff", bytes(4), MAGIC, rng.randbytes(4)])[: len(data) - at]
            data[at : at + len(word)] = word
            places.update(range(at, at + len(word)))
    return places


def test_flipped_bytes_cost_no_neighbour_and_make_no_wrong_row():
    rng = random.Random(7)
    damaged = 0
    for _ in range(6000):
        frames = some_frames(rng, rng.randint(1, 8))
        data = segment(frames)
        mutant = bytearray(data)
        places = mutate(mutant, rng)
        found = [frame for _, frame in scan_frames(bytes(mutant), EPOCH)]
        assert set(found) <= set(frames)
        start = 0
        for frame in frames:
            end = start + FRAME_OVERHEAD + len(frame.payload)
            if all(mutant[at] == data[at] for at in places if start <= at < end):
                assert frame in found
            start = end
        damaged += mutant != data
        if mutant != data:
            with pytest.raises(BadInput, match="is damaged at byte"):
                list(read_frames(bytes(mutant), EPOCH))
    assert damaged > 5000


def test_cut_and_inserted_bytes_make_no_wrong_row():
    rng = random.Random(8)
    for _ in range(3000):
        frames = some_frames(rng, 6)
        data = segment(frames)
        at, length = rng.randrange(len(data)), rng.randint(1, 60)
        mutant = data[:at] + (rng.randbytes(length) + data[at:] if rng.random() < 0.5 else data[at + length :])
        found = [frame for _, frame in scan_frames(mutant, EPOCH)]
        assert set(found) <= set(frames)
        assert len(found) >= len(frames) - 2 - length // FRAME_OVERHEAD


def test_frames_of_another_log_are_not_believed():
    frames = some_frames(random.Random(1), 3)
    assert list(scan_frames(segment(frames, "f" * 16), EPOCH)) == []
    with pytest.raises(BadInput):
        list(read_frames(segment(frames, "f" * 16), EPOCH))


def test_a_frame_that_comes_twice_is_taken_once():
    frames = some_frames(random.Random(2), 2)
    assert [frame for _, frame in scan_frames(segment([*frames, frames[0], frames[1]]), EPOCH)] == frames


def test_a_frame_inside_a_payload_stays_a_payload_though_its_bearer_is_damaged():
    inner = Frame(7, 1, b"forged")
    bearer = Frame(1, 1, b"x" * 50 + segment([inner]) + b"y" * 50)
    after = Frame(9, 1, b"neighbour")
    data = bytearray(segment([bearer, after]))
    data[FRAME_OVERHEAD + 3] ^= 1
    assert [frame for _, frame in scan_frames(bytes(data), EPOCH)] == [after]


def test_a_payload_full_of_false_heads_does_not_cost_a_quadratic_search():
    head = encode_frame(EPOCH, 5, 1, b"")[:4] + (5_000_000).to_bytes(4, "little") + b"\1" + bytes(15)
    data = head * 400_000  # 9.6 MB, each head claims 5 MB
    assert list(scan_frames(data, "f" * 16)) == []  # ends by its budget: hours without it
