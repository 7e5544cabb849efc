from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.serving import NotReady, NotServed, Resting, Serving


class Closing:
    """A pipeline that only remembers how often it was closed."""

    def __init__(self, worker=None) -> None:
        self.spec = SimpleNamespace(number=None, steps=[SimpleNamespace(worker=worker)])
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def active(name="demo", refuses=None, models=None):
    """A pipeline; with `models` a predictor of these."""
    options = {"models": {each: {"1": {}} for each in models or ()}}
    loaded = Closing(SimpleNamespace(kind="cortex", options=options) if models else None)
    return ActivePipeline(name, "v", f"sha256:{name}", loaded, SimpleNamespace(refuses=refuses), "line-4")


@pytest.fixture
def serving():
    return Serving()


def test_a_lease_keeps_the_old_version_open_until_it_ends(serving):
    old, new = active(), active()
    serving.switch("demo", old)
    with serving.lease("demo") as leased:
        serving.switch("demo", new)
        assert leased is old
        assert old.loaded.closed == 0
        with serving.lease("demo") as other:
            assert other is new
    assert (old.loaded.closed, new.loaded.closed) == (1, 0)


def test_what_still_answers_is_known_until_its_last_lease_ends(serving):
    old = active()
    serving.switch("demo", old)
    with serving.lease("demo"):
        serving.switch("demo", active(refuses="the same name"))
        assert serving.leaving == {old.manifest}
    assert serving.leaving == frozenset()


def test_a_version_without_requests_is_closed_at_once_and_once(serving):
    old = active()
    serving.switch("demo", old)
    serving.switch("demo", active())
    serving.remove("demo")
    serving.remove("demo")
    assert old.loaded.closed == 1
    assert serving.names == []


def test_a_lease_ends_when_its_request_fails(serving):
    old = active()
    serving.switch("demo", old)
    with pytest.raises(ZeroDivisionError), serving.lease(None):
        raise ZeroDivisionError
    serving.remove("demo")
    assert old.loaded.closed == 1


def test_without_a_name_the_only_pipeline_answers(serving):
    serving.switch("demo", active())
    with serving.lease(None) as leased:
        assert leased.name == "demo"
    serving.switch("other", active("other"))
    with pytest.raises(NotServed, match="'demo', 'other'"), serving.lease(None):
        pass


def test_an_unknown_name_is_refused_with_those_that_are_served(serving):
    serving.switch("demo", active())
    with pytest.raises(NotServed, match="'x' is not served here: there is 'demo'"), serving.lease("x"):
        pass


def test_what_is_being_loaded_is_not_ready_and_not_unknown(serving):
    serving.switch("demo", active())
    serving.expect(["demo", "next"])
    assert serving.waiting_for == "loading next"
    with pytest.raises(NotReady, match="loading next") as caught, serving.lease("next"):
        pass
    assert caught.value.retry_after_s == 1
    serving.switch("next", active("next"))
    assert serving.waiting_for is None


def test_a_log_that_takes_no_rows_is_not_ready(serving):
    serving.switch("demo", active(refuses="log 'demo' is full"))
    assert serving.waiting_for == "log 'demo' is full"
    with serving.lease("demo"):  # whether it still refuses, only asking tells
        pass


def test_nothing_served_is_not_ready(serving):
    assert serving.waiting_for == "no pipeline is active"
    with pytest.raises(NotReady), serving.lease("demo"):
        pass


def test_close_closes_all(serving):
    one, two = active("one"), active("two")
    serving.switch("one", one)
    serving.switch("two", two)
    serving.close()
    assert (one.loaded.closed, two.loaded.closed) == (1, 1)


@pytest.mark.parametrize(
    ("name", "version"), [("api", None), ("a", None), ("a", "1"), ("a", "latest"), (None, None), (None, "latest")]
)
def test_a_predictor_that_rests_is_woken_by_all_its_names(serving, name, version):
    program = active("api", models=("a", "b"))
    serving.switch("api", program)
    serving.rest("api", "")
    serving.wake = lambda key, by: serving.switch(key[0], program)
    assert serving.is_one_program
    with serving.lease(name, version, wake_by=math.inf) as leased:
        assert leased is program


def test_what_rests_is_woken_by_no_name_that_others_have(serving):
    serving.switch("api", active("api", models=("a",)))
    serving.rest("api", "")
    serving.switch("a", active("a"))
    with serving.lease("a") as leased:
        assert leased.name == "a"
    serving.switch("other", active("other", models=("b",)))
    assert not serving.is_one_program
    with pytest.raises(Resting, match="model 'api' rests"):
        serving.unload("api")
    for name in ("c", None):
        with pytest.raises(NotServed, match="'a', 'api', 'other'"), serving.lease(name, wake_by=math.inf):
            pass
