"""Where errors become answers: one shape for the API, one for the registry, and no traceback for anybody."""

from __future__ import annotations

import contextlib
import errno
import logging

from flask import Response, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from edgepack.errors import BadInput, EdgepackError
from hub.calls import error_response, read_chunks
from hub.refusal import Refused
from hub.registry.answers import registry_error
from hub.store.database import reason_of

_log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "the hub's disk is full: nothing was kept; make room on it, then try again"
_READ_AWAY = 64 << 20  # bytes of a body that found no room: who is still sending it does not hear the answer


def answer_error(error: Exception) -> Response:
    """Turn anything that a view raised into an answer in the caller's language."""
    status, message = judge(error)
    if status == 507:
        _read_away()
    response = (
        registry_error(status, message, error) if request.path.startswith("/v2") else error_response(status, message)
    )
    if getattr(error, "close", False):
        response.headers["Connection"] = "close"
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def judge(error: Exception) -> tuple[int, str]:
    """Status and one line for an error."""
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, BadInput):
        return 400, str(error)
    if isinstance(error, HTTPException):
        return _judge_http(error)
    found = _judge_disk(error)
    if found is None:
        _log.error("request not answered: %s %s", request.method, request.path, exc_info=error)
        return 500, f"fault of the hub: {type(error).__name__}; its log says more"
    _log.error("%s %s: %s", request.method, request.path, found[1])
    return found


def _judge_disk(error: Exception) -> tuple[int, str] | None:
    """What the disk or the database could not do: 507 where it needs room (RFC 4918, 11.5), else 503."""
    if isinstance(error, OperationalError):
        said = reason_of(error)
        if "full" in said:
            return 507, _DISK_FULL
        if "locked" in said or "busy" in said:
            return 503, "the hub's database is busy: nothing was kept; try again later"
        return 503, f"the hub's database does not do this now: {said}; nothing was kept; try again later"
    if isinstance(error, OSError) and error.errno in _FULL:
        return 507, _DISK_FULL
    if isinstance(error, OSError):
        return 503, f"the hub's disk does not do this now: {error.strerror}; nothing was kept; try again later"
    if isinstance(error, EdgepackError):
        return 503, f"the hub could not do this now: {error}; nothing was kept"
    return None


def _read_away() -> None:
    """Read on to the end of the body, so that its sender gets to the answer."""
    with contextlib.suppress(BadInput):  # it broke off: nobody waits for an answer
        for _ in read_chunks(request.stream, _READ_AWAY):
            pass


def _judge_http(error: HTTPException) -> tuple[int, str]:
    status = error.code or 500
    if status == 404:
        return 404, f"'{request.path}' does not exist: /api/v1/openapi.json lists what does"
    if status == 405:
        return 405, f"'{request.path}' does not take {request.method}: /api/v1/openapi.json lists what it takes"
    return status, error.description or error.name
