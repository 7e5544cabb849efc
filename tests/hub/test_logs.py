"""The log read back: pages, cursors, filters."""

from __future__ import annotations

import pytest

from fleet import wire
from tests.hub.running import Columns, RunningHub, frame, rows_block, segment


@pytest.fixture
def filled(running: RunningHub) -> RunningHub:
    """Two devices, two pipelines; 30 rows of wine at press-1, 5 of beer at press-2."""
    return fill(running)


@pytest.fixture(scope="module")
def read_only(shared: RunningHub) -> RunningHub:
    """The same, for tests that only read."""
    return fill(shared)


def fill(running: RunningHub) -> RunningHub:
    one, two = running.device("press-1"), running.device("press-2")
    one.upload(0, segment(0, 7, 3))
    two.upload(0, segment(0, 5), **{wire.SEGMENT_PIPELINE: "beer"})
    one.upload(1, segment(10, 20))
    return running


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 34, 35, 36, 10_000])
def test_pages_of_any_size_give_every_row_once_in_order(read_only, limit):
    rows = read_only.every_row(limit=limit)
    order = [(row["metadata"]["partition"], row["metadata"]["seq"]) for row in rows]
    expected = [("press-1", n) for n in range(10)] + [("press-2", n) for n in range(5)]
    assert order == expected + [("press-1", n) for n in range(10, 30)]


def test_a_cursor_stays_good_for_rows_that_come_later(filled):
    end = filled.logs(limit=10_000)["next"]
    assert filled.logs(after=end) == {"rows": [], "next": None}
    filled.device("press-3").upload(0, segment(0, 2))
    later = filled.logs(after=end)
    assert [row["metadata"]["partition"] for row in later["rows"]] == ["press-3"] * 2


def test_filters_choose_pipeline_device_and_request(read_only):
    assert len(read_only.every_row(pipeline="beer")) == 5
    refused = read_only.http.get("/api/v1/logs?pipeline=none", headers=read_only.admin)
    assert refused.status_code == 404 and refused.json()["error"].endswith("there is 'beer', 'wine'")
    assert len(read_only.every_row(device="press-1", limit=4)) == 30
    assert len(read_only.every_row(device="press-2", pipeline="wine")) == 0
    found = read_only.every_row(request_id="r-3", limit=1)
    assert [(row["metadata"]["partition"], row["metadata"]["seq"]) for row in found] == [("press-1", 3), ("press-2", 3)]


def test_many_rows_of_one_request_are_cut_where_the_page_ends(running):
    device = running.device()
    blocks = [rows_block(0, 4), rows_block(4, 4, request="same"), rows_block(8, 4)]
    device.upload(0, b"".join(frame(at * 4, 4, block=block) for at, block in enumerate(blocks)))
    for limit in (1, 3, 4, 5):
        assert [row["metadata"]["seq"] for row in running.every_row(request_id="same", limit=limit)] == [4, 5, 6, 7]


def test_rows_without_a_request_id_are_passed_over(running):
    device = running.device()
    block = rows_block(0, 2)
    bare: Columns = block.select([name for name in block.schema.names if name != "metadata.request_id"])
    device.upload(0, frame(0, 2, block=bare))
    assert running.every_row(request_id="r-0") == [] and len(running.every_row()) == 2


def test_a_page_of_large_rows_ends_early_and_nothing_is_lost(running, monkeypatch):
    monkeypatch.setattr("hub.logs._PAGE_BYTES", 1000)
    running.device().upload(0, segment(0, 50, 50))
    monkeypatch.setattr("hub.logs._PIECE", 3)
    assert len(running.logs(limit=10_000)["rows"]) < 100
    assert len(running.every_row(limit=10_000)) == 100


def test_a_search_that_finds_nothing_goes_on_from_where_it_was(running, monkeypatch):
    monkeypatch.setattr("hub.logs._SCAN_BYTES", 100)
    device = running.device()
    for number in range(5):
        device.upload(number, segment(number * 3, 3))
    page = running.logs(request_id="r-14")
    assert page["rows"] == [] and page["next"] is not None
    assert [row["metadata"]["seq"] for row in running.every_row(request_id="r-14")] == [14]


def test_rows_of_a_revoked_device_stay(filled):
    filled.http.delete("/api/v1/devices/press-2", headers=filled.admin)
    assert len(filled.every_row(device="press-2")) == 5


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": 0}, 400),
        ({"limit": 10_001}, 400),
        ({"limit": "x"}, 400),
        ({"after": "1"}, 400),
        ({"after": "-1.0"}, 400),
        ({"pipeline": "No Name"}, 400),
        ({"device": "nobody"}, 404),
        ({"pipline": "wine"}, 400),
    ],
)
def test_a_wrong_query_field_is_named(read_only, query, status):
    answer = read_only.http.get("/api/v1/logs", params=query, headers=read_only.admin)
    assert answer.status_code == status and next(iter(query)) in answer.json()["error"]


def test_a_segment_that_the_disk_lost_hides_no_other(filled, caplog):
    for path in (filled.config.data / "segments").rglob("0-*"):
        path.write_bytes(b"gone")
    assert [row["metadata"]["seq"] for row in filled.every_row()] == list(range(10, 30))
    assert "does not read" in caplog.text
