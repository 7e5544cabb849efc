"""The document, the routes and the rules of who may do what say the same."""

from __future__ import annotations

import re

import pytest

from hub.app import create_app
from hub.openapi import ROOT, ROUTES, document


def test_every_route_is_in_the_document_and_back(running):
    app = create_app(running.hub)
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(ROOT)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    told = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}
    assert served == told == {(route.method, ROOT + route.path) for route in ROUTES}


def test_the_document_is_served_and_whole(shared):
    served = shared.http.get("/api/v1/openapi.json").json()
    assert served["openapi"] == "3.1.0"
    operations = [each for path in served["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations) == len(ROUTES)
    names = set(served["components"]["schemas"])
    assert {"Assignment", "Enrolment", "ErrorBody", "LogPage", "Receipt", "Token"} <= names
    used = set(re.findall(r"#/components/schemas/(\w+)", str(served)))
    assert used <= names


def test_no_message_lets_an_unknown_field_through():
    for name, schema in document()["components"]["schemas"].items():
        assert schema["additionalProperties"] is False, name


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_only_whom_a_route_is_for_gets_in(shared, one_device, route):
    path = ROOT + re.sub(r"{\w+}", "1", route.path.replace("segments/{device}", f"segments/{one_device.id}"))
    callers = {"anyone": {}, "device": one_device.headers, "admin": shared.admin}
    for who, headers in callers.items():
        status = shared.http.request(route.method, path, headers=headers).status_code
        if route.who == "anyone" or who == route.who:
            assert status not in (401, 403), (who, status)
        else:
            assert status == (401 if who == "anyone" else 403), (who, status)


@pytest.fixture(scope="module")
def one_device(shared):
    return shared.device("matrix")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", "Bearer a.b", "Basic eDp4", "Basic \xff", "Bearer dev_0.", "Bearer " + "x" * 4000],
)
def test_credentials_that_are_none_are_refused_in_one_line(shared, header):
    answer = shared.http.get("/api/v1/devices", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_bodies_are_read_up_to_their_limit_and_as_json_only(shared):
    post = shared.http.post
    json_type = {**shared.admin, "Content-Type": "application/json"}
    assert post("/api/v1/tokens", content=b"{}", headers=shared.admin).status_code == 415
    assert post("/api/v1/tokens", content=b"", headers=json_type).status_code == 400
    assert post("/api/v1/tokens", content=b'{"group":"\xff"}', headers=json_type).status_code == 400
    assert post("/api/v1/tokens", content=b"[" * 100_000, headers=json_type).status_code == 400
    assert post("/api/v1/tokens", content=b" " * ((1 << 20) + 1), headers=json_type).status_code == 413
    assert post("/api/v1/tokens", content=iter([b" " * (1 << 20), b"{}"]), headers=json_type).status_code == 413
    assert post("/api/v1/tokens", content=b"{}", headers=json_type).status_code == 201


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v2/x", "/nothing", "/v2/nothing", "/api/v1/assignments/"])
def test_what_does_not_exist_is_a_404_in_json(shared, path):
    answer = shared.http.get(path, headers=shared.admin)
    assert answer.status_code == 404 and answer.headers["Content-Type"] == "application/json"


def test_a_method_that_a_route_does_not_take_is_a_405(shared):
    answer = shared.http.post("/api/v1/devices", headers=shared.admin)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) >= {"GET"}
