"""What a device should run: published, fitting, numbered, and never changed behind somebody's back."""

from __future__ import annotations

import pytest

from bundle.bundle import bundles
from tests.hub.running import Pusher, small_bundle


def put(running, body, device="press-1", **headers):
    return running.http.put(f"/api/v1/assignments/{device}", json=body, headers={**running.admin, **headers})


def manifest_for(index, target: str) -> str:
    return next(str(each.digest) for each in bundles(index) if str(each.target) == target)


def test_a_device_without_an_assignment_runs_nothing(running):
    answer = running.device().get("/api/v1/assignment")
    assert answer.json()["sequence"] == 0 and answer.json()["pipelines"] == {}
    assert answer.headers["ETag"] == '"0"'


def test_an_assigned_index_becomes_the_manifest_of_the_devices_target(running, published):
    boxes = {"x86/none": running.device("press-1"), "arm/none": running.device("press-2", "arm")}
    for target, device in boxes.items():
        assert put(running, {"pipelines": {"wine": published.digest}}, device.name).status_code == 200
        found = device.get("/api/v1/assignment").json()
        wanted = {"manifest": manifest_for(published, target), "index": published.digest, "repository": "wine"}
        assert found["pipelines"] == {"wine": wanted}
        assert found["sequence"] == 1 and found["device"] == device.id


def test_a_manifest_may_be_named_instead_of_its_index(running, published):
    device = running.device()
    assert put(running, {"pipelines": {"wine": manifest_for(published, "x86/none")}}, device.id).status_code == 200
    assert device.get("/api/v1/assignment").json()["pipelines"]["wine"]["index"] == published.digest


def test_a_manifest_of_another_target_is_refused(running, published):
    running.device()
    answer = put(running, {"pipelines": {"wine": manifest_for(published, "arm/none")}})
    assert answer.status_code == 409 and "'wine'" in answer.json()["error"] and "x86/none" in answer.json()["error"]


def test_a_pipeline_without_a_manifest_for_the_device_is_named(running, tmp_path):
    index = small_bundle(tmp_path / "b", targets=("x86",))
    Pusher(running).publish(index)
    running.device("press-2", "arm")
    answer = put(running, {"pipelines": {"wine": index.digest}}, "press-2")
    assert answer.status_code == 409
    assert "'wine'" in answer.json()["error"] and "arm/none" in answer.json()["error"]


@pytest.mark.parametrize(
    ("pipelines", "status"),
    [({"beer": None}, 404), ({"wine": "sha256:" + "0" * 64}, 404), ({"wine": "latest"}, 400)],
)
def test_what_is_not_published_is_named_and_nothing_changes(running, published, pipelines, status):
    device = running.device()
    put(running, {"pipelines": {"wine": published.digest}})
    body = {name: digest or published.digest for name, digest in pipelines.items()}
    answer = put(running, {"pipelines": body})
    assert answer.status_code == status and next(iter(pipelines)) in answer.json()["error"]
    assert device.get("/api/v1/assignment").json()["sequence"] == 1


def test_a_known_assignment_is_answered_with_304(running, published):
    device = running.device()
    put(running, {"pipelines": {"wine": published.digest}})
    for known in ('"1"', 'W/"1"', '"0", "1"'):
        answer = device.get("/api/v1/assignment", **{"If-None-Match": known})
        assert answer.status_code == 304 and answer.headers["ETag"] == '"1"'
    assert device.get("/api/v1/assignment", **{"If-None-Match": '"0"'}).status_code == 200


def test_the_same_assignment_again_keeps_its_number_and_another_raises_it(running, published):
    device = running.device()
    for body, sequence in (({"wine": published.digest}, 1), ({"wine": published.digest}, 1), ({}, 2), ({}, 2)):
        answer = put(running, {"pipelines": body})
        assert answer.json()["sequence"] == sequence and answer.headers["ETag"] == f'"{sequence}"'
    assert device.get("/api/v1/assignment").json()["pipelines"] == {}


def test_a_change_made_from_an_old_state_is_refused(running, published):
    running.device()
    assert put(running, {"pipelines": {"wine": published.digest}}, **{"If-Match": '"0"'}).status_code == 200
    late = put(running, {"pipelines": {}}, **{"If-Match": '"0"'})
    assert late.status_code == 412 and "sequence 1" in late.json()["error"]
    assert put(running, {"pipelines": {}}, **{"If-Match": "*"}).status_code == 200


def test_the_operator_reads_by_name_and_by_id(running):
    device = running.device()
    for name in (device.name, device.id):
        answer = running.http.get(f"/api/v1/assignments/{name}", headers=running.admin)
        assert answer.json()["device"] == device.id and answer.headers["ETag"] == '"0"'
    assert running.http.get("/api/v1/assignments/nobody", headers=running.admin).status_code == 404
    assert put(running, {"pipelines": {}}, "nobody").status_code == 404
