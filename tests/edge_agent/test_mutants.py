"""2,000 damaged requests at every door of an agent: a refusal or an answer, never a fault of ours, and life goes on.

EDGEPACK_MUTANTS sets how many, EDGEPACK_MUTANT_SEED which; `python -m bench.faults mutants` is the long form.
"""

from __future__ import annotations

import os

import pytest

from tests.faults.device import Device
from tests.faults.mutants import mutant
from tests.faults.ordeal import Ordeal, fault_of
from tests.faults.right import right_requests
from tests.faults.wire import Answer, BadlyFramed, exchange, read_answers

MUTANTS = int(os.environ.get("EDGEPACK_MUTANTS", "2000"))
SEED = int(os.environ.get("EDGEPACK_MUTANT_SEED", "11"))
WITH_BODIES = [right for right in right_requests() if right.request.body not in (b"", b"{}")]
BARE = "oip bare"  # bytes alone: a shorter body is one of fewer rows


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    place = tmp_path_factory.mktemp("agent")
    with Device.of_all_doors(place, place / "agent.log") as device:
        yield device


def test_no_damaged_request_is_a_fault_of_the_agent(agent):
    with Ordeal(agent, SEED) as ordeal:
        outcome = ordeal.run(range(MUTANTS))
    assert outcome.mutants == MUTANTS
    assert outcome.statuses[200] > MUTANTS // 20
    assert {400, 404, 405, 413, 415} <= outcome.statuses.keys()


@pytest.mark.parametrize("right", WITH_BODIES, ids=lambda right: right.name)
def test_bodies_cut_short_are_refused(agent, right):
    """Whether the head says the whole length, or the length of what came."""
    whole = right.request.encode()
    head, body = whole[: -len(right.request.body)], right.request.body
    for length in {0, 1, len(body) // 2 - 1, len(body) - 1}:
        (answer,) = exchange(agent.port(), head + body[:length])
        assert (answer.status, fault_of(answer)) == (400, None)
        said = head.replace(b"Content-Length: %d\r\n" % len(body), b"Content-Length: %d\r\n" % length)
        (answer,) = exchange(agent.port(), said + body[:length])
        if right.name != BARE:
            assert answer.status == 400, answer
        assert fault_of(answer) is None


def test_a_path_with_two_slashes_is_no_route_and_leads_to_none(agent):
    (answer,) = exchange(agent.port(), b"GET /pipelines/%2f HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, fault_of(answer)) == (404, None)


def test_a_mutant_is_the_same_each_time_it_is_made():
    rights = right_requests()
    assert [mutant(rights, 3, n).data for n in range(100)] == [mutant(rights, 3, n).data for n in range(100)]
    assert len({mutant(rights, 3, n).data for n in range(100)}) > 90


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, {}, b'{"error":"fault of ours"}'),
        Answer(501, {}, b'{"error":"fault of ours"}'),
        Answer(400, {}, b"<html>"),
        Answer(400, {}, b'{"error":"two\\nlines"}'),
        Answer(301, {}, b""),
    ],
)
def test_the_ordeal_sees_a_fault(answer):
    assert fault_of(answer) is not None


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"nonsense", b"HTTP/1.1 2"])
def test_the_ordeal_sees_an_answer_that_is_badly_framed(data):
    with pytest.raises(BadlyFramed):
        read_answers(data)
