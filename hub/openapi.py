"""The hub's native API as an OpenAPI 3.1 document: one table of routes, and the messages of `fleet/` as schemas.

The table comes first, the code follows it: a test holds Flask's routes and this table together, and the answers to
it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from edgepack import __version__
from fleet import messages, wire

ROOT = "/api/v1"

Who = Literal["anyone", "device", "admin"]


@dataclass(frozen=True)
class Route:
    """One operation: who may do it, what it takes and what it answers.

    A body or answer is a message, or None for empty.
    """

    operation: str
    method: str
    path: str
    summary: str
    who: Who
    answers: dict[int, type | None]
    body: type | None = None
    segment: bool = False  # the body is a segment, not JSON
    query: dict[str, str] = field(default_factory=dict)  # name -> what it does
    headers: dict[str, str] = field(default_factory=dict)  # request headers beside Authorization
    refusals: tuple[int, ...] = ()  # statuses with an ErrorBody, beside those that every operation has


_IF_MATCH = {"If-Match": "the ETag that the change was made from; 412 when another change came between"}
_IF_NONE_MATCH = {"If-None-Match": "the ETag that is known; 304 when it is still the newest"}
_SEGMENT_HEADERS = {
    wire.SEGMENT_DIGEST: "`sha256:<hex>` of the body",
    wire.SEGMENT_PIPELINE: "the pipeline whose rows the segment holds",
}
_LOG_QUERY = {
    "pipeline": "only rows of this pipeline",
    "device": "only rows of this device, by name or id",
    "request_id": "only rows of this X-Request-Id",
    "after": "the cursor `next` of a page before",
    "limit": "at most this many rows, 1 to 10000; 1000 when left out",
}

ROUTES = (
    Route("get_document", "GET", "/openapi.json", "This document", "anyone", {200: dict}),
    Route(
        "make_token",
        "POST",
        "/tokens",
        "Make a join token; shown once, used once",
        "admin",
        {201: messages.Token},
        messages.TokenRequest,
    ),
    Route(
        "enrol",
        "POST",
        "/enrol",
        "Become a device: the token is used up and the device made in one transaction; asking again with the same "
        "token and secret hash gives the same identity",
        "anyone",
        {200: messages.Enrolment},
        messages.EnrolRequest,
        refusals=(403, 409),
    ),
    Route(
        "get_own_assignment",
        "GET",
        "/assignment",
        "What the asking device should run",
        "device",
        {200: messages.Assignment, 304: None},
        headers=_IF_NONE_MATCH,
    ),
    Route(
        "get_assignment",
        "GET",
        "/assignments/{device}",
        "What a device, by name or id, should run",
        "admin",
        {200: messages.Assignment, 304: None},
        headers=_IF_NONE_MATCH,
        refusals=(404,),
    ),
    Route(
        "assign",
        "PUT",
        "/assignments/{device}",
        "Replace all that a device should run; what it runs already keeps its sequence number",
        "admin",
        {200: messages.Assignment},
        messages.AssignRequest,
        headers=_IF_MATCH,
        refusals=(404, 409, 412),
    ),
    Route(
        "report_inventory",
        "PUT",
        "/inventory",
        "What the asking device is and runs",
        "device",
        {204: None},
        messages.Inventory,
    ),
    Route(
        "put_segment",
        "PUT",
        "/segments/{device}/{epoch}/{number}",
        "Bring one sealed segment home: 201 the first time, 200 with the same receipt afterwards; durable before "
        "the answer",
        "device",
        {201: messages.Receipt, 200: messages.Receipt},
        segment=True,
        headers=_SEGMENT_HEADERS,
        refusals=(409,),
    ),
    Route(
        "get_logs",
        "GET",
        "/logs",
        "Result rows, oldest first",
        "admin",
        {200: messages.LogPage},
        query=_LOG_QUERY,
        refusals=(404,),
    ),
    Route("list_devices", "GET", "/devices", "Every enrolled device", "admin", {200: messages.Devices}),
    Route(
        "revoke_device",
        "DELETE",
        "/devices/{device}",
        "Revoke a device: its secret is refused from now on",
        "admin",
        {204: None},
        refusals=(404,),
    ),
    Route(
        "list_pipelines",
        "GET",
        "/pipelines",
        "Every published version, newest first",
        "admin",
        {200: messages.Pipelines},
    ),
)


def document() -> dict[str, Any]:
    """The whole document, ready to be serialized."""
    types = [kind for route in ROUTES for kind in (route.body, *route.answers.values()) if kind not in (None, dict)]
    schemas, components = msgspec.json.schema_components(
        [*types, messages.ErrorBody], ref_template="#/components/schemas/{name}"
    )
    named = dict(zip([*types, messages.ErrorBody], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(ROOT + route.path, {})[route.method.lower()] = _operation(route, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgepack hub",
            "version": __version__,
            "description": "The fleet: devices, assignments, logs.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


_SCHEMES = {
    "admin": {"type": "http", "scheme": "bearer", "description": "the admin token that `edgepack hub` printed"},
    "device": {"type": "http", "scheme": "bearer", "bearerFormat": "<device id>.<secret>"},
}


def _operation(route: Route, named: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "security": [] if route.who == "anyone" else [{route.who: []}],
        "parameters": _parameters(route),
        "responses": _responses(route, named),
    }
    if route.segment:
        made["requestBody"] = {
            "required": True,
            "content": {wire.SEGMENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": named[route.body]}}}
    return made


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    inside = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in re.findall(r"{(\w+)}", route.path)
    ]
    asked = [{"name": name, "in": "query", "description": what, "schema": text} for name, what in route.query.items()]
    needed = route.segment
    heads = [
        {"name": name, "in": "header", "required": needed, "description": what, "schema": text}
        for name, what in route.headers.items()
    ]
    return [*inside, *asked, *heads]


def _responses(route: Route, named: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    responses = {
        str(status): _answer(status, named.get(kind, {}) if kind else None) for status, kind in route.answers.items()
    }
    for status in sorted(refusals_of(route)):
        responses[str(status)] = _answer(status, named[messages.ErrorBody])
    return responses


def _answer(status: int, schema: dict[str, Any] | None) -> dict[str, Any]:
    described = {"description": HTTPStatus(status).phrase}
    return described if schema is None else {**described, "content": {"application/json": {"schema": schema}}}


def refusals_of(route: Route) -> set[int]:
    """Every status with which an operation may refuse: its own, and those that come with a body, a query or
    credentials; 503 when the hub cannot do it now, 507 when its disk is full.
    """
    statuses = {503, *route.refusals}
    if route.method != "GET":
        statuses.add(507)
    if route.who != "anyone":
        statuses |= {401, 403}
    if route.body is not None or route.segment:
        statuses |= {400, 413, 415}
    if route.query or route.segment:
        statuses.add(400)
    return statuses
