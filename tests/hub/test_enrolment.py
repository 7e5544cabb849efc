"""Tokens and identities: one token, one device, whatever is repeated, lost, raced or replayed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from fleet import credentials

SECRET = credentials.make_secret()


def ask(running, token: str, name: str = "press-1", secret: str = SECRET, target: str = "x86"):
    body = {"token": token, "name": name, "target": target, "secret_sha256": credentials.hash_secret(secret)}
    return running.http.post("/api/v1/enrol", json=body)


def test_a_token_makes_a_device_that_the_hub_knows(running):
    made = ask(running, running.token(group="line-1")).json()
    devices = running.http.get("/api/v1/devices", headers=running.admin).json()["devices"]
    assert [(each["id"], each["name"], each["target"], each["group"]) for each in devices] == [
        (made["device"], "press-1", "x86/none", "line-1")
    ]
    assert devices[0]["last_seen"] is None and devices[0]["assignment"] is None


def test_the_same_request_again_gives_the_same_identity(running):
    token = running.token()
    assert ask(running, token).json() == ask(running, token).json()


def test_a_lost_answer_may_be_asked_for_after_the_token_expired(running, clock):
    token = running.token(expires_s=60)
    first = ask(running, token).json()
    clock.now += 100
    assert ask(running, token).json() == first


def test_a_used_token_with_another_secret_is_refused(running):
    token = running.token()
    assert ask(running, token).status_code == 200
    again = ask(running, token, secret=credentials.make_secret())
    assert again.status_code == 403 and "used already" in again.json()["error"]
    assert ask(running, token, name="press-2").status_code == 403


@pytest.mark.parametrize("token", ["", "join-x-y", "join-000000000000-" + "0" * 64, "x" * 5000, "epa_1"])
def test_an_unknown_token_is_refused(shared, token):
    answer = ask(shared, token)
    assert answer.status_code == 403 and "not one of this hub" in answer.json()["error"]


def test_a_token_with_a_right_id_and_a_wrong_secret_is_refused(running):
    assert ask(running, running.token()[:-1] + "x").status_code == 403


def test_an_expired_token_is_refused(running, clock):
    token = running.token(expires_s=60)
    clock.now += 61
    answer = ask(running, token)
    assert answer.status_code == 403 and "expired" in answer.json()["error"]


def test_a_name_that_is_taken_is_named_and_the_token_stays_good(running):
    running.device("press-1")
    token = running.token()
    answer = ask(running, token, secret=credentials.make_secret())
    assert answer.status_code == 409 and "'press-1'" in answer.json()["error"]
    assert ask(running, token, name="press-2").status_code == 200


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("name", "Press 1"), ("name", "dev_0"), ("target", "mips"), ("secret_sha256", "AB"), ("token", 7), ("extra", "x")],
)
def test_a_wrong_field_is_named(shared, field, wrong):
    body = {"token": shared.token(), "name": "a", "target": "x86", "secret_sha256": credentials.hash_secret("s")}
    answer = shared.http.post("/api/v1/enrol", json={**body, field: wrong})
    assert answer.status_code == 400 and field in answer.json()["error"]


@pytest.mark.parametrize(
    "fields", [{"expires_s": 0}, {"expires_s": 10**9}, {"expires_s": "1"}, {"group": "Line 1"}, {"x": 1}]
)
def test_a_wrong_token_request_is_named(shared, fields):
    answer = shared.http.post("/api/v1/tokens", json=fields, headers=shared.admin)
    assert answer.status_code == 400 and next(iter(fields)) in answer.json()["error"]


def test_a_hundred_parallel_uses_of_one_token_make_one_identity(running):
    token = running.token()
    secrets = [credentials.make_secret() for _ in range(100)]
    ready = threading.Barrier(10)

    def use(part: int) -> list[int]:
        with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as http:
            ready.wait()
            statuses = []
            for number in range(part, 100, 10):
                body = {
                    "token": token,
                    "name": f"press-{number}",
                    "target": "x86",
                    "secret_sha256": credentials.hash_secret(secrets[number]),
                }
                statuses.append(http.post("/api/v1/enrol", json=body).status_code)
            return statuses

    with ThreadPoolExecutor(10) as pool:
        statuses = [status for part in pool.map(use, range(10)) for status in part]
    assert sorted(statuses) == [200] + [403] * 99
    assert len(running.http.get("/api/v1/devices", headers=running.admin).json()["devices"]) == 1


def test_a_revoked_device_is_refused_everywhere_and_its_name_is_free(running):
    device = running.device("press-1")
    assert device.get("/api/v1/assignment").status_code == 200
    assert running.http.delete("/api/v1/devices/press-1", headers=running.admin).status_code == 204
    for path in ("/api/v1/assignment", "/v2/"):
        answer = device.get(path)
        assert answer.status_code == 401 and "revoked" in answer.text
    assert running.http.delete("/api/v1/devices/press-1", headers=running.admin).status_code == 404
    assert running.device("press-1").id != device.id


def test_the_database_holds_no_secret(running):
    token = running.token()
    device = running.device("press-1")
    running.hub.presence.flush()
    held = b"".join(path.read_bytes() for path in running.config.data.glob("hub.sqlite*"))
    for secret in (token.rpartition("-")[2], device.secret, running.hub.admin_token):
        assert secret.encode() not in held


def test_the_inventory_shows_in_the_list(running):
    device = running.device("press-1")
    inventory = {
        "target": "x86/none",
        "version": "0.1.0",
        "sequence": 1,
        "pipelines": {"wine": {"manifest": "sha256:1", "state": "failed", "reason": "golden rows differ"}},
    }
    assert device.put("/api/v1/inventory", inventory).status_code == 204
    assert device.put("/api/v1/inventory", inventory).status_code == 204
    (view,) = running.http.get("/api/v1/devices", headers=running.admin).json()["devices"]
    assert view["inventory"] == inventory and view["last_seen"] == running.clock.now
    assert device.put("/api/v1/inventory", {**inventory, "sequence": "1"}).status_code == 400


def test_presence_survives_a_clean_stop(tmp_path, clock):
    from tests.hub.running import RunningHub

    first = RunningHub(tmp_path / "hub", clock)
    first.device().get("/api/v1/assignment")
    first.close()
    clock.now += 1000
    second = RunningHub(tmp_path / "hub", clock)
    (view,) = second.http.get("/api/v1/devices", headers=second.admin).json()["devices"]
    second.close()
    assert view["last_seen"] == clock.now - 1000
