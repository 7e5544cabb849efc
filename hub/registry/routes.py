"""The registry's routes (distribution-spec 1.1): pull for devices and the admin, push for the admin.

A repository is a pipeline's name, or any other name the spec allows, so that images can be kept here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from hub.hub import Hub
from hub.refusal import Refused
from hub.registry import pulls, pushes
from hub.registry.answers import VERSION, accepted

_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")

Answerer = Callable[..., Response]

# path under /v2/<name>, methods, who answers
_ROUTES: tuple[tuple[str, tuple[str, ...], Answerer], ...] = (
    ("tags/list", ("GET",), pulls.list_tags),
    ("referrers/<digest>", ("GET",), pulls.list_referrers),
    ("manifests/<reference>", ("GET",), pulls.get_manifest),
    ("manifests/<reference>", ("PUT",), pushes.put_manifest),
    ("blobs/<digest>", ("GET",), pulls.get_blob),
    ("blobs/uploads/", ("POST",), pushes.begin_upload),
    ("blobs/uploads/<session>", ("GET",), pushes.upload_status),
    ("blobs/uploads/<session>", ("PATCH",), pushes.continue_upload),
    ("blobs/uploads/<session>", ("PUT",), pushes.finish_upload),
    ("blobs/uploads/<session>", ("DELETE",), pushes.cancel_upload),
)


def make_registry(hub: Hub) -> Blueprint:
    """All routes under /v2/."""
    registry = Blueprint("registry", __name__, url_prefix="/v2")
    registry.before_request(lambda: _authorize(hub))
    registry.add_url_rule("/", "version", lambda: accepted(200, {}), methods=["GET"])
    for path, methods, answerer in _ROUTES:
        _bind(registry, hub, path, methods, answerer)
    return registry


def _bind(registry: Blueprint, hub: Hub, path: str, methods: tuple[str, ...], answerer: Answerer) -> None:
    def answer(name: str, **parts: Any) -> Response:
        if not _NAME.fullmatch(name) or len(name) > 255:
            raise Refused(400, f"'{name[:100]}' is not the name of a repository", field="NAME_INVALID")
        response = answerer(hub, name, **parts)
        response.headers.update(VERSION)
        return response

    registry.add_url_rule(
        f"/<path:name>/{path}", answerer.__name__, answer, methods=list(methods), strict_slashes=False
    )


def _authorize(hub: Hub) -> None:
    caller = hub.access.identify(request.headers.get("Authorization"))
    if caller.device is not None:
        hub.presence.note(caller.device)
        if request.method not in ("GET", "HEAD"):
            raise Refused(403, f"device '{caller.name}' may pull, not push", field="DENIED")
