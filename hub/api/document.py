"""GET /api/v1/openapi.json."""

from __future__ import annotations

import msgspec

from hub import openapi
from hub.calls import Answer, Call


def get_document(call: Call) -> Answer:
    """The OpenAPI document of this API."""
    return Answer(200, raw=msgspec.json.encode(openapi.document()))
