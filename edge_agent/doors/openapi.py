"""The OpenAPI document of what this agent answers right now: its routes, and each pipeline's rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from columns.schema import Schema
from columns.types import ListOf, Scalar, StructOf, Type
from edge_agent.doors import kserve, oip, predict, wallaroo_sdk
from edge_agent.doors.values import OCTETS
from edge_agent.doors.versions import own_versions
from edge_agent.pipelines.inference import ARROW_FILE, ARROW_STREAM, JSON
from edge_agent.pipelines.serving import Serving
from edgepack import __version__

_TEXTUAL = ("string", "binary", "date32", "timestamp")


def document(serving: Serving) -> dict[str, Any]:
    """OpenAPI 3.1 for the pipelines being served."""
    rows = {f"{p.name}-rows": _rows(p.loaded.input) for p in serving.pipelines}
    named = {f"/pipelines/{p.name}": _inference(f"Infer with pipeline {p.name}", [p.name]) for p in serving.pipelines}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgepack agent", "version": __version__},
        "paths": {
            "/infer": _inference("Infer with the only pipeline", serving.names),
            **named,
            "/pipelines": _get("The pipelines that answer"),
            "/models": _get("Their models"),
            "/logs": _logs(),
            **_other_doors(serving),
            "/healthz": _get("Whether the agent lives"),
            "/readyz": _get("Whether every pipeline is loaded", {"503": _said("Not yet, and why")}),
            "/metrics": {"get": {"summary": "Prometheus figures", "responses": {"200": {"description": "Text"}}}},
            "/": _get("A status page for browsers, or that the agent lives"),
        },
        "components": {"schemas": {**rows, "Error": _ERROR}},
    }


_ERROR = {
    "type": "object",
    "required": ["code", "status", "error", "source"],
    "properties": {
        "code": {"type": "integer"},
        "status": {"type": "string"},
        "error": {"type": "string", "description": "One line: what, which field, what to do."},
        "source": {"type": "string"},
    },
}


def _inference(summary: str, names: list[str]) -> dict[str, Any]:
    schemas = [{"$ref": f"#/components/schemas/{name}-rows"} for name in names]
    arrow = {
        media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in (ARROW_FILE, ARROW_STREAM)
    }
    result = {JSON: {"schema": {"type": "array", "items": {"type": "object"}}}, **arrow}
    return {
        "post": {
            "summary": summary,
            "parameters": [_FOCUS, _EXCLUDE, _SEPARATOR],
            "requestBody": {"required": True, "content": {JSON: {"schema": {"anyOf": schemas}}, **arrow}},
            "responses": {
                "200": {"description": "One result a row", "content": result},
                **{status: _error(words) for status, words in _REFUSED.items()},
            },
        }
    }


def _other_doors(serving: Serving) -> dict[str, Any]:
    """What protocols of others describe in documents of their own: here by name, with the pipelines there are."""
    octets = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}
    own = [each for pipeline in serving.pipelines for each in own_versions(serving, pipeline)]
    versions = [pipeline.version for pipeline in serving.pipelines]
    parts = {
        "pipeline": {"type": "string", **({"enum": serving.names} if versions else {})},
        "version": {
            "type": "string",
            **({"enum": [*versions, *_each(number for _, number in own)]} if versions else {}),
        },
        "deployment": {"type": "string"},
    }
    models = {"type": "string", **({"enum": _each([*serving.names, *(name for name, _ in own)])} if versions else {})}
    said: dict[str, Any] = {}
    for route in (*oip.ROUTES, *kserve.ROUTES, *predict.ROUTES, *wallaroo_sdk.ROUTES):
        names = re.findall(r"{(\w+)}", route.pattern)
        schemas = parts | ({"pipeline": models} if route.pattern.startswith(_OF_MODELS) else {})
        entry: dict[str, Any] = {
            "summary": (route.door.__doc__ or "").partition(": ")[0].strip("`. "),
            "parameters": [{"name": n, "in": "path", "required": True, "schema": schemas[n]} for n in names],
            "responses": {
                "200": {"description": "As the protocol says", "content": {JSON: {"schema": {}}, **octets}},
                **{status: _said(words) for status, words in _refusals_of(route.pattern).items()},
            },
        }
        if route.method == "POST":
            entry["requestBody"] = {"content": {JSON: {"schema": {}}, **octets}}
        said.setdefault(route.pattern, {})[route.method.lower()] = entry
    return said


_OF_MODELS = ("/v2/models/", "/v1/models/")  # which know a predictor's own models by their names


def _each(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))


_REFUSED = {
    "400": "Does not fit",
    "404": "No such pipeline or version",
    "413": "Too large",
    "415": "Wrong media type or coding",
    "422": "The model cannot run this",
    "503": "Not ready, too busy, or the log takes no rows: come back after Retry-After",
}


def _refusals_of(pattern: str) -> dict[str, str]:
    is_for_clients = not pattern.endswith(("/load", "/unload"))
    return _REFUSED if is_for_clients else {**_REFUSED, "403": "Whoever runs the agent decides what it serves"}


def _logs() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    parameters = [
        {"name": "pipeline", "in": "query", "schema": {"type": "string"}},
        {"name": "limit", "in": "query", "schema": count},
        {"name": "after_seq", "in": "query", "schema": count},
        _FOCUS,
        _EXCLUDE,
        _SEPARATOR,
    ]
    answer = {"description": "Every row kept, oldest first", "content": {JSON: {"schema": {"type": "array"}}}}
    refused = {status: _error(_REFUSED[status]) for status in ("400", "404", "503")}
    responses = {"200": answer, **refused}
    return {"post": {"summary": "The inference log", "parameters": parameters, "responses": responses}}


def _get(summary: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": _said(summary), **(more or {})}}}


def _said(words: str) -> dict[str, Any]:
    """An answer that is some JSON object."""
    return {"description": words, "content": {JSON: {"schema": {"type": "object"}}}}


def _error(words: str) -> dict[str, Any]:
    return {"description": words, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _query(name: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": words, "schema": schema}


_NAMES = {"type": "array", "items": {"type": "string"}}
_FOCUS = _query("dataset[]", "Columns or groups to answer with", _NAMES)
_EXCLUDE = _query("dataset.exclude[]", "Columns or groups to leave out", _NAMES)
_SEPARATOR = _query("dataset.separator", "Answer flat, names joined by this", {"type": "string"})


def _rows(schema: Schema) -> dict[str, Any]:
    properties = {field.name: _json_type(field.type) for field in schema}
    row = {
        "type": "object",
        "properties": properties,
        "required": list(schema.names),
        "additionalProperties": False,
    }
    return {"type": "array", "items": row, "minItems": 1}


def _json_type(kind: Type) -> dict[str, Any]:
    """A type of ours as JSON Schema."""
    if isinstance(kind, ListOf):
        sized = {} if kind.size is None else {"minItems": kind.size, "maxItems": kind.size}
        found: dict[str, Any] = {"type": "array", "items": _json_type(kind.item), **sized}
    elif isinstance(kind, StructOf):
        properties = {name: _json_type(each) for name, each in kind.fields}
        found = {"type": "object", "properties": properties}
    else:
        found = {"type": _json_scalar(kind), "format": kind.name}
    return {"anyOf": [found, {"type": "null"}]} if kind.nullable else found


def _json_scalar(kind: Scalar) -> str:
    if kind.name == "bool":
        return "boolean"
    if kind.name.startswith(_TEXTUAL):
        return "string"
    return "number" if kind.name.startswith("float") else "integer"
