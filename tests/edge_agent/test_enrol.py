from __future__ import annotations

import re
import stat
from pathlib import Path

import msgspec
import pytest

from edge_agent.folders import Folders
from edge_agent.link.enrol import default_name, enrol, joining, open_hub
from edge_agent.link.hub_client import HttpHub, Refused, checked_url
from edge_agent.link.identity import Identity
from edge_agent.state import State
from edgepack.errors import BadInput, NotTrusted, Unreachable
from fleet.credentials import hash_secret
from fleet.messages import Assignment
from tests.fakes.dripping import ANSWERS, dripping
from tests.fakes.hub import LyingHub


def secrets_in(folders):
    return sorted(folders.identity.glob("secret-*"))


def test_a_token_gives_an_identity_that_the_hub_lets_in(hub, folders, state):
    given = enrol(folders, state, hub.url, hub.token(), name="line-1")
    assert (given.enrolled.name, given.already) == ("line-1", False)
    client = open_hub(folders, state.enrolment())
    assignment, etag = client.assignment(None)
    assert (assignment.sequence, assignment.pipelines) == (0, {})
    assert client.assignment(etag) is None
    client.close()


def test_the_secret_is_readable_by_its_owner_only_and_not_what_the_hub_is_told(hub, folders, state):
    enrol(folders, state, hub.url, hub.token(), name="line-2")
    (path,) = secrets_in(folders)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folders.identity.stat().st_mode) == 0o700
    assert path.read_text().strip() not in str(hub.call("GET", "/api/v1/devices"))


def test_an_answer_that_was_lost_is_asked_for_again_and_gives_the_same_device(hub, folders, state, link):
    token, before = hub.token(), len(hub.call("GET", "/api/v1/devices")["devices"])
    link.lose_answers(1)
    with pytest.raises(Unreachable):
        enrol(folders, state, link.url, token, name="line-3")
    (kept,) = secrets_in(folders)
    given = enrol(folders, state, link.url, token, name="line-3")
    assert link.lost == 1
    assert given.enrolled.secret_sha256 == hash_secret(kept.read_text().strip())
    assert len(hub.call("GET", "/api/v1/devices")["devices"]) == before + 1


@pytest.mark.parametrize("token", ["wrong", "join-000000000000-" + "0" * 64])
def test_a_wrong_token_is_the_users_to_mend(hub, folders, state, token):
    with pytest.raises(BadInput, match="join token") as error:
        enrol(folders, state, hub.url, token)
    assert "\n" not in str(error.value)
    assert state.enrolment() is None


def test_a_token_that_another_device_used_is_refused(hub, folders, state, tmp_path):
    token = hub.token()
    enrol(folders, state, hub.url, token, name="line-4")
    others = Folders(tmp_path / "other").make()
    other = State.open(others.state)
    with pytest.raises(BadInput, match="used already"):
        enrol(others, other, hub.url, token, name="line-5")
    other.close()


def test_a_hub_that_is_away_is_unreachable_and_the_secret_waits(folders, state):
    with pytest.raises(Unreachable, match="did not answer"):
        enrol(folders, state, "http://127.0.0.1:9", "join-x")
    assert len(secrets_in(folders)) == 1


def test_enrolling_again_at_the_same_hub_changes_nothing_and_at_another_needs_force(hub, folders, state):
    first = enrol(folders, state, hub.url, hub.token(), name="line-6").enrolled
    assert enrol(folders, state, hub.url, "whatever").already
    other = hub.url.replace("127.0.0.1", "localhost")
    with pytest.raises(BadInput, match="--force"):
        enrol(folders, state, other, hub.token())
    second = enrol(folders, state, other, hub.token(), name="line-7", force=True).enrolled
    assert second.device != first.device
    assert len(secrets_in(folders)) == 1
    assert Identity(folders.identity).secret(second.secret_sha256)


def test_the_old_identity_stays_whole_when_leaving_it_fails(hub, folders, state):
    first = enrol(folders, state, hub.url, hub.token(), name="line-8").enrolled
    with pytest.raises(BadInput):
        enrol(folders, state, hub.url, "wrong", force=True)
    assert state.enrolment() == first
    open_hub(folders, first).close()


def test_a_lost_secret_is_one_clear_line(hub, folders, state):
    enrolled = enrol(folders, state, hub.url, hub.token(), name="line-9").enrolled
    secrets_in(folders)[0].unlink()
    with pytest.raises(BadInput, match="enrol again"):
        open_hub(folders, enrolled)


@pytest.mark.parametrize(
    "url", ["http://hub.example:8090", "http://192.168.0.1", "ftp://hub", "hub", "http://u:p@127.0.0.1", "http://h:x"]
)
def test_a_hub_url_that_must_not_be_used_is_refused(url):
    with pytest.raises(BadInput, match="hub '"):
        checked_url(url)


def test_the_advice_for_a_url_without_tls_keeps_the_port():
    for url, advice in (
        ("http://10.1.1.1:8090", "https://10.1.1.1:8090"),
        ("http://[fd00::1]:1", "https://[fd00::1]:1"),
    ):
        with pytest.raises(BadInput, match=re.escape(f"use {advice}") + "$"):
            checked_url(url)


def test_https_to_a_hub_without_it_says_so(hub, folders, state):
    with pytest.raises(NotTrusted, match="speaks plain http there") as error:
        enrol(folders, state, hub.url.replace("http:", "https:"), "join-x")
    assert "--ca" not in str(error.value)


def test_what_the_hub_says_about_a_token_is_not_said_twice(hub, folders, state):
    with pytest.raises(BadInput) as error:
        enrol(folders, state, hub.url, "wrong")
    assert str(error.value).endswith("ask for another with `edgepack devices token`")
    assert secrets_in(folders) == []


def test_a_refusal_leaves_nothing_of_a_new_data_folder(hub, tmp_path):
    folders = Folders(tmp_path / "new" / "data")
    with pytest.raises(BadInput, match="join token"), joining(folders) as later:
        enrol(folders, later, hub.url, "wrong")
    with pytest.raises(BadInput, match="CA file"), joining(folders) as later:
        enrol(folders, later, hub.url, hub.token(), ca=Path(__file__))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_stays_as_it_was_after_a_refusal(hub, tmp_path):
    (tmp_path / "note").write_text("mine")
    folders = Folders(tmp_path)
    with pytest.raises(BadInput, match="join token"), joining(folders) as later:
        enrol(folders, later, hub.url, "wrong")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_new_folder_keeps_only_the_secret_while_the_answer_is_lost(hub, tmp_path, link):
    folders, token = Folders(tmp_path / "data"), hub.token()
    link.lose_answers(1)
    with pytest.raises(Unreachable), joining(folders) as later:
        enrol(folders, later, link.url, token, name="later-1")
    assert [path.name for path in folders.root.iterdir()] == ["identity"]
    (kept,) = secrets_in(folders)
    with joining(folders) as later:
        given = enrol(folders, later, link.url, token, name="later-1")
    assert given.enrolled.secret_sha256 == hash_secret(kept.read_text().strip())
    with joining(folders) as later:
        assert enrol(folders, later, link.url, "whatever").already


@pytest.mark.parametrize("url", ["https://hub.example/", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_https_anywhere_and_http_on_this_machine_are_fine(url):
    assert checked_url(url) == url.rstrip("/")


def test_the_default_name_is_a_legal_one():
    assert default_name() == default_name().lower()


def told(status, body=b"{}", **headers):
    hub = LyingHub(lambda *_: (status, {key.replace("_", "-"): text for key, text in headers.items()}, body))
    return hub, HttpHub(hub.url, device="dev_1", bearer="dev_1.x", read_s=60)


def ask(status, body=b"{}", **headers):
    hub, client = told(status, body, **headers)
    try:
        return client.assignment(None)
    finally:
        client.close()
        hub.close()


def test_an_overloaded_hub_says_when_to_come_back():
    with pytest.raises(Unreachable, match="503") as error:
        ask(503, b"busy", Retry_After="7")
    assert error.value.retry_after_s == 7


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_drips_is_given_up(answer):
    with dripping(ANSWERS[answer]) as host:
        client = HttpHub(f"http://{host}", device="dev_1", bearer="dev_1.x", answer_s=0.1)
        with pytest.raises(Unreachable, match="did not answer: "):
            client.assignment(None)
        client.close()


def test_a_redirect_is_not_followed():
    with pytest.raises(Unreachable, match="302"):
        ask(302, Location="http://127.0.0.1:9/")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"device": 1}', b'{"device":"a","sequence":1,"pipelines":{}}'])
def test_an_answer_that_does_not_read_is_not_trusted(body):
    with pytest.raises(NotTrusted, match="no assignment that reads"):
        ask(200, body)


def test_an_endless_answer_is_cut_off():
    with pytest.raises(NotTrusted, match="more than"):
        ask(200, b" " * (5 << 20))


def test_a_refusal_carries_its_status_and_what_the_hub_said_in_one_line():
    with pytest.raises(Refused, match=r"\(403\): go away") as error:
        ask(403, b'{"code":403,"status":"Error","error":"go\\n away","source":"hub"}')
    assert error.value.status == 403


def test_an_assignment_comes_with_its_entity_tag():
    sent = Assignment("dev_1", 3, {}, 1.0)
    assert ask(200, msgspec.json.encode(sent), ETag='"3"') == (sent, '"3"')
