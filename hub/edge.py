"""Where errors become answers: one shape for the API, one for the registry, and no traceback for anybody."""

from __future__ import annotations

import errno
import logging

from flask import Response, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from edgepack.errors import BadInput, EdgepackError
from hub.calls import error_response
from hub.refusal import Refused
from hub.registry.answers import registry_error

_log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def answer_error(error: Exception) -> Response:
    """Turn anything that a view raised into an answer in the caller's language."""
    status, message = judge(error)
    response = (
        registry_error(status, message, error) if request.path.startswith("/v2") else error_response(status, message)
    )
    if getattr(error, "close", False):
        response.headers["Connection"] = "close"
    return response


def judge(error: Exception) -> tuple[int, str]:
    """Status and one line for an error."""
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, BadInput):
        return 400, str(error)
    if isinstance(error, HTTPException):
        return _judge_http(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        return 503, "the hub's disk is full: nothing was kept; try again later"
    _log.error("request not answered: %s %s", request.method, request.path, exc_info=error)
    if isinstance(error, (EdgepackError, OperationalError, OSError)):
        return 503, f"the hub could not do this now: {error}; nothing was kept"
    return 500, f"fault of the hub: {type(error).__name__}; its log says more"


def _judge_http(error: HTTPException) -> tuple[int, str]:
    status = error.code or 500
    if status == 404:
        return 404, f"'{request.path}' does not exist: /api/v1/openapi.json lists what does"
    if status == 405:
        return 405, f"'{request.path}' does not take {request.method}: /api/v1/openapi.json lists what it takes"
    return status, error.description or error.name
