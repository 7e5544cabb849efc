"""`Collector`: where traces go, as the environment says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from edgepack.errors import BadInput

ENDPOINT = "EDGEPACK_OTLP_ENDPOINT"

_PATH = "/v1/traces"
_EXACT, _GENERAL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"


@dataclass(frozen=True)
class Collector:
    """Where spans go, and as whose."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()  # may hold credentials: never logged
    service: str = "edgepack-agent"

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Collector | None:
        """By EDGEPACK_OTLP_ENDPOINT, else OpenTelemetry's own variables; None where none is set.

        Raises BadInput that names the variable which does not read.
        """
        variable = next((name for name in (ENDPOINT, _EXACT, _GENERAL) if environment.get(name)), None)
        if variable is None:
            return None
        found = environment[variable]
        whole = found if variable == _EXACT else found.rstrip("/") + _PATH
        parts = urlsplit(whole)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"environment variable {variable} is '{found}': expected an http URL", field=variable)
        headers = tuple(_pairs(environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")))
        return cls(whole, headers, environment.get("OTEL_SERVICE_NAME") or cls.service)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """`key=value,key=value`, percent-encoded, as W3C Baggage has it."""
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        yield unquote(name.strip()), unquote(value.strip())
