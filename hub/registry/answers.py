"""Answers and errors as the distribution spec has them."""

from __future__ import annotations

import msgspec
from flask import Response

from hub.calls import RETRY_AFTER_S

_CODES = {
    400: "UNSUPPORTED",
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
}

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}


def registry_error(status: int, message: str, error: Exception) -> Response:
    """An error answer; `error.field` is the spec's code where the one who raised it knew it."""
    code = getattr(error, "field", None) or _CODES.get(status, "UNKNOWN")
    body = {"errors": [{"code": code, "message": " ".join(message.split()), "detail": None}]}
    response = Response(msgspec.json.encode(body), status, VERSION, mimetype="application/json")
    if status == 401:
        # docker and skopeo send a password only when they are asked with Basic
        response.headers["WWW-Authenticate"] = 'Basic realm="edgepack hub"'
    if status in RETRY_AFTER_S:
        response.headers["Retry-After"] = RETRY_AFTER_S[status]
    return response


def accepted(status: int, headers: dict[str, str]) -> Response:
    """An answer without a body."""
    response = Response(b"", status, {**VERSION, **headers})
    response.headers.pop("Content-Type", None)
    return response
