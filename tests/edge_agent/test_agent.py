"""The agent with its loops against a real hub; the pipelines are real, only the HTTP door is missing."""

from __future__ import annotations

import contextlib
import time

import pytest

from bundle.bundle import bundles
from bundle.pipeline import Resources
from edge_agent.activate import WrongAnswers
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.doors.seam import Call
from edge_agent.folders import Folders
from edge_agent.link.enrol import enrol
from edge_agent.pipelines.inference import RECORDS, decode, infer
from edge_agent.state import LIVE_NOTE, State
from edge_agent.status import read_status
from edgepack.errors import BadInput, NotTrusted, RuntimeFailed
from fleet.messages import Assignment
from oci.layout import write_layout
from runtimes.trial import run_trial
from tests.certificates import make_certificate
from tests.edge_agent.real_hub import assigned, enrolled_folder, make_bundle, running_hub
from tests.edge_agent.served import until

ROW = b'[{"x": [1, 2, 3]}]'


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(hub_folder):
    with running_hub(hub_folder) as hub:
        yield hub


@pytest.fixture
def device(hub, link, tmp_path):
    """An enrolled device: its data folder and its id."""
    folders, enrolled = enrolled_folder(hub, tmp_path / "data", link.url)
    return folders.root, enrolled.device


@contextlib.contextmanager
def running(data, *bundles, trial=None, **changes):
    config = Config(data=data, seal_s=0.05, backoff_first_s=0.1, backoff_cap_s=0.2, **changes)
    with Agent.open(config, trial=trial) as agent:
        agent.expect()
        agent.begin(bundles)
        agent.start()
        yield agent


def answer(agent, name="demo", request_id="r"):
    with agent.serving.lease(name) as active:
        call = Call("POST", "/infer", "", {}, ROW, request_id)
        result = infer(active, call, lambda schema: decode(ROW, RECORDS, schema))
        for kept in call.logged:
            kept.wait()
        return float(result.arrays["out.y"][0, 0])


def serves(agent, index, name="demo"):
    return lambda: (
        agent.serving.names
        and {each.name: each.manifest for each in agent.serving.pipelines}.get(name) == (assigned(index).manifest)
    )


def ids_at(hub):
    return [row["metadata"]["request_id"] for row in hub.rows()]


def test_an_assignment_is_served_replaced_and_added_to_and_each_row_is_at_the_hub_once(hub, device, tmp_path):
    data, me = device
    one, two, other = (
        make_bundle(tmp_path / "b", factor=1.0),
        make_bundle(tmp_path / "b", factor=2.0),
        make_bundle(tmp_path / "b", "other", 3.0),
    )
    for index, name in [(one, "demo"), (two, "demo"), (other, "other")]:
        hub.publish(index, name)
    with running(data) as agent:
        hub.assign(me, demo=one.digest)
        until(serves(agent, one), "the first version serves")
        assert answer(agent, request_id="a1") == 6.0
        hub.assign(me, demo=one.digest, other=other.digest)
        until(serves(agent, other, "other"), "the other pipeline serves beside it")
        hub.assign(me, demo=two.digest, other=other.digest)
        until(serves(agent, two), "the second version took its place")
        assert (answer(agent, request_id="a2"), answer(agent, "other", "a3")) == (12.0, 18.0)
        assert agent.state.installed()["demo"].previous == assigned(one)
        until(lambda: {"a1", "a2", "a3"} <= set(ids_at(hub)), "the rows are at the hub")
        now = ("active", assigned(two).manifest)
        until(lambda: (report := hub.report(me)) and (report["state"], report["manifest"]) == now, "the hub knows")
        hub.assign(me, demo=two.digest)
        until(lambda: agent.serving.names == ["demo"], "what is not assigned is removed")
    assert sorted(each for each in ids_at(hub) if each.startswith("a")) == ["a1", "a2", "a3"]


def test_a_bundle_that_answers_wrongly_leaves_the_previous_and_the_hub_learns_why(hub, device, tmp_path):
    data, me = device
    good, bad = make_bundle(tmp_path / "b"), make_bundle(tmp_path / "b", factor=7.0, right=False)
    hub.publish(good)
    hub.publish(bad)
    with running(data) as agent:
        hub.assign(me, demo=good.digest)
        until(serves(agent, good), "the good one serves")
        hub.assign(me, demo=bad.digest)
        until(lambda: (hub.report(me) or {}).get("state") == "failed", "the hub learns of it")
        report = hub.report(me)
        assert "answers wrongly on this machine" in report["reason"]
        assert f"keeping {assigned(good).manifest}" in report["reason"]
        assert answer(agent) == 12.0
        assert agent.state.quarantined()[assigned(bad).manifest].verdict == "failed"
        hub.assign(me, demo=good.digest)
        until(lambda: hub.report(me)["state"] == "active", "back on the good one")


def test_a_bundle_that_does_not_fit_is_refused_before_its_model_comes_and_the_hub_learns_why(hub, device, tmp_path):
    data, me = device
    good = make_bundle(tmp_path / "b", factor=1.0)
    large = make_bundle(tmp_path / "b", factor=4.0, resources=Resources(memory="900Ti"))
    for index in (good, large):
        hub.publish(index)
    with running(data) as agent:
        hub.assign(me, demo=good.digest)
        until(serves(agent, good), "the good one serves")
        hub.assign(me, demo=large.digest)
        until(lambda: "does not fit this device" in str(hub.report(me)), "the hub knows why")
        assert "[resources] memory is 900Ti, this device has" in str(hub.report(me))
        assert answer(agent) == 6.0
        layers = {layer.descriptor.digest for layer in bundles(large)[0].image.layers}
        here = {f"sha256:{path.name}" for path in Folders(data).blobs.iterdir()}
        assert layers - here, "the model of the large one was never pulled"


def test_a_bundle_that_crashes_is_tried_three_times_and_the_hub_learns_of_the_last(hub, device, tmp_path):
    data, me = device
    index, tried = make_bundle(tmp_path / "b"), []
    hub.publish(index)

    def crash(folder):
        tried.append(folder)
        raise RuntimeFailed("pipeline 'demo' ended its trial by signal SIGSEGV")

    with running(data, trial=crash) as agent:
        hub.assign(me, demo=index.digest)
        until(lambda: agent.state.quarantined(), "it is given up")
        until(lambda: "did not become active in 3 attempts" in str(hub.report(me)), "the hub learns of it")
        assert "SIGSEGV" in hub.report(me)["reason"]
        assert len(tried) == 3


def test_rows_answered_while_the_hub_is_away_arrive_later(hub, device, link, tmp_path):
    data, me = device
    index = make_bundle(tmp_path / "b")
    hub.publish(index)
    with running(data) as agent:
        hub.assign(me, demo=index.digest)
        until(serves(agent, index), "it serves")
        link.die()
        asked = [f"b{number}" for number in range(20)]
        for each in asked:
            assert answer(agent, request_id=each) == 12.0
        until(lambda: read_status(data).errors.keys() >= {"check-in", "sync"}, "the device says so")
        link.lose_answers(2, b"PUT /api/v1/segments")
        link.mend()
        until(lambda: set(asked) <= set(ids_at(hub)), "the rows arrive")
        until(lambda: read_status(data).errors == {}, "the device says that all is well")
    assert sorted(each for each in ids_at(hub) if each.startswith("b")) == sorted(asked)


def test_what_an_agent_complained_of_when_it_was_killed_is_not_said_of_the_next(hub, device):
    data, _ = device
    with running(data) as agent:
        until(lambda: read_status(data).last_check_in_ms, "it checks in")
        agent.state.beat(errors={"check-in": "the hub did not answer"})
    assert read_status(data).errors, "nobody wiped it away"
    with running(data):
        until(lambda: read_status(data).errors == {}, "the device says that all is well")


def test_a_start_without_the_hub_serves_what_was_active(hub, device, link, tmp_path):
    data, me = device
    index = make_bundle(tmp_path / "b")
    hub.publish(index)
    with running(data) as agent:
        hub.assign(me, demo=index.digest)
        until(serves(agent, index), "it serves")
    link.die()
    with running(data) as agent:
        assert answer(agent) == 12.0


def test_a_damaged_bundle_is_fetched_again(hub, device, tmp_path):
    data, me = device
    index = make_bundle(tmp_path / "b")
    hub.publish(index)
    with running(data) as agent:
        hub.assign(me, demo=index.digest)
        until(serves(agent, index), "it serves")
    path = data / "bundles" / assigned(index).manifest[7:] / "linear.onnx"
    path.chmod(0o644)
    path.write_bytes(b"rotten")  # the blob is the same file: it is damaged as well
    with running(data) as agent:
        until(serves(agent, index), "it serves again")
        assert answer(agent) == 12.0


def test_a_lying_reply_about_the_sequence_is_not_followed(hub, device, tmp_path):
    data, me = device
    index = make_bundle(tmp_path / "b")
    hub.publish(index)
    state = State.open(data / "state.sqlite")
    state.accept(Assignment(me, 50, {}, 0.1), None)
    state.close()
    with running(data) as agent:
        hub.assign(me, demo=index.digest)
        until(lambda: "a lower one is never applied" in read_status(data).errors.get("check-in", ""), "it is said")
        assert agent.serving.names == []


def test_a_baked_bundle_serves_until_the_hub_assigns_something(hub, tmp_path):
    baked, index = make_bundle(tmp_path / "b", factor=1.0), make_bundle(tmp_path / "b", factor=2.0)
    hub.publish(index)
    layout = tmp_path / "layout"
    write_layout(baked, layout)
    data = tmp_path / "data"
    with running(data, layout, hub=hub.url, token=hub.token(), name="baked-1") as agent:
        assert answer(agent, request_id="c1") == 6.0
        until(lambda: agent.state.enrolment(), "it enrols by itself")
        me = agent.state.enrolment().device
        until(lambda: "c1" in ids_at(hub), "its rows arrive")
        assert agent.serving.names == ["demo"]
        hub.assign(me, demo=index.digest)
        until(serves(agent, index), "the hub decides")
    with running(data, layout) as agent:
        assert answer(agent) == 12.0


def test_a_hub_with_a_certificate_of_its_own_is_trusted_through_the_ca_given_at_enrolment(tmp_path):
    cert, key = make_certificate(tmp_path)
    index, data = make_bundle(tmp_path / "b"), tmp_path / "data"
    with running_hub(tmp_path / "hub", (cert, key)) as hub:
        hub.publish(index)
        folders = Folders(data).make()
        state = State.open(folders.state)
        with pytest.raises(NotTrusted, match="give its CA with --ca"):
            enrol(folders, state, hub.url, hub.token())
        with pytest.raises(BadInput, match="does not read as PEM"):
            enrol(folders, state, hub.url, hub.token(), ca=key)
        me = enrol(folders, state, hub.url, hub.token(), ca=cert).enrolled.device
        state.close()
        cert.unlink()
        with running(data) as agent:
            hub.assign(me, demo=index.digest)
            until(serves(agent, index), "it serves")
            assert answer(agent, request_id="tls") == 12.0
            until(lambda: "tls" in ids_at(hub), "its row arrives")


def test_enrolling_beside_a_running_agent_is_noticed(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.agent._ENROLMENT_POLL_S", 0.05)
    data = tmp_path / "data"
    with running(data) as agent:
        _, enrolled = enrolled_folder(hub, data)
        until(lambda: hub.device(enrolled.device)["last_seen"], "it checks in")
        assert agent.has_hub


def test_a_bundle_folder_that_is_wrong_ends_the_start_unless_something_else_serves(hub, tmp_path):
    bad, good = tmp_path / "bad", tmp_path / "good"
    write_layout(make_bundle(tmp_path / "b", factor=4.0, right=False), bad)
    write_layout(make_bundle(tmp_path / "b", factor=1.0), good)
    with pytest.raises(WrongAnswers), running(tmp_path / "one", bad):
        pass
    with running(tmp_path / "two", good):
        pass
    with running(tmp_path / "two", bad) as agent:
        assert answer(agent) == 6.0


def test_an_agent_is_not_ready_before_all_bundle_folders_are_loaded_or_known_to_be_wrong(tmp_path):
    layouts = [tmp_path / name for name in ("first", "second", "wrong")]
    for layout in layouts:
        bundle = make_bundle(tmp_path / "b", layout.name, right=layout.name != "wrong")
        write_layout(bundle, layout)
    said = []
    with Agent.open(Config(data=tmp_path / "data"), trial=lambda folder: noted(folder)) as agent:

        def noted(folder):
            said.append((agent.serving.names, agent.serving.waiting_for))
            return run_trial(folder)

        agent.begin(layouts)
        assert said == [
            ([], "loading first, second, wrong"),
            (["first"], "loading second, wrong"),
            (["first", "second"], "loading wrong"),
        ]
        assert agent.serving.waiting_for is None and agent.serving.names == ["first", "second"]


def test_who_asks_for_one_bundle_is_not_answered_by_what_the_folder_held_before(tmp_path):
    """As `edgepack serve` does; the same bundle as before is there at once, without a trial."""
    old, new, said = tmp_path / "old", tmp_path / "new", []
    write_layout(make_bundle(tmp_path / "b", factor=1.0), old)
    write_layout(make_bundle(tmp_path / "b", factor=2.0), new)
    for layout, expected, tried in ((old, 6.0, [[]]), (new, 12.0, [[]]), (new, 12.0, [])):
        said.clear()
        with Agent.open(Config(data=tmp_path / "data"), trial=lambda folder: noted(folder)) as agent:

            def noted(folder, agent=agent):
                said.append(agent.serving.names)
                return run_trial(folder)

            agent.begin([layout], alone=True)
            assert answer(agent) == expected
            assert said == tried


def test_a_second_agent_on_the_same_folder_is_told_who_has_it(tmp_path):
    with running(tmp_path / "data"), pytest.raises(BadInput, match="in use by process"), running(tmp_path / "data"):
        pass


def test_a_hub_url_without_tls_is_refused_at_the_start(tmp_path):
    with pytest.raises(BadInput, match="no TLS"), running(tmp_path / "data", hub="http://10.0.0.1", token="x"):
        pass


def test_a_folder_of_models_that_is_looked_at_once_is_not_followed(tmp_path):
    (tmp_path / "models").mkdir()
    with running(tmp_path / "data", models=tmp_path / "models", models_s=0) as agent:
        loop = agent._live.loop
        assert not loop._thread.is_alive()
        assert loop.join(0), "nothing to wait for"


def test_what_an_earlier_process_was_told_of_models_is_not_told_of_this_one(tmp_path):
    with Agent.open(Config(data=tmp_path / "data")) as agent:
        agent.state.beat(**{f"{LIVE_NOTE}line": "it was broken"})
    assert read_status(tmp_path / "data").models == {"line": "it was broken"}
    with running(tmp_path / "data"):
        assert read_status(tmp_path / "data").models == {}


def test_loops_that_are_at_work_end_in_one_time_together(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    now, told = [0.0], []

    class Busy:
        """A loop that is still at work after whatever time it is given."""

        def stop(self):
            told.append("stop")

        def join(self, timeout_s):
            told.append("join")
            now[0] += timeout_s

    with running(tmp_path / "data", models=tmp_path / "models", stop_s=5.0) as agent:
        agent.stop()
        with monkeypatch.context() as patched:
            for owner, name in ((agent, "_check_in"), (agent, "_sync"), (agent._live, "loop")):
                patched.setattr(owner, name, Busy())
            patched.setattr(time, "monotonic", lambda: now[0])
            agent.stop()
    assert (told, now) == (["stop"] * 3 + ["join"] * 3, [5.0])
