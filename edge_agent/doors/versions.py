"""Which version of a pipeline a client asks for. One is served at a time; it is named by its UUID."""

from __future__ import annotations

from edge_agent.serving import ActivePipeline, NotServed


def check_version(active: ActivePipeline, version: str | None) -> None:
    """Raise NotServed unless no version is asked for, or the one that is served."""
    if version and version != active.version:
        raise NotServed(
            f"version '{version[:60]}' of pipeline '{active.name}' is not served here: there is '{active.version}'",
            field="version",
        )
