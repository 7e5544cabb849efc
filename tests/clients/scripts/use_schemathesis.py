"""`schemathesis run` with what edgepack's documents need of it: use_schemathesis.py URL EXAMPLES [BEARER]."""

from __future__ import annotations

import sys

import schemathesis
from schemathesis.cli import schemathesis as program

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
)


@schemathesis.serializer("application/vnd.edgepack.segment.v1")
def segment(context: object, value: object) -> bytes:
    """Bytes as they were generated."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


url, examples, *bearer = sys.argv[1:]
program(
    [
        "run",
        url,
        *("--checks", ",".join(CHECKS)),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", examples),
        *("--seed", "1"),
        *("--request-timeout", "60"),
        *("--warnings", "off"),
        *(f for token in bearer for f in ("--header", f"Authorization: Bearer {token}")),
        "--continue-on-failure",
        "--no-color",
    ]
)
