"""Which version of a pipeline a client asks for. One is served at a time; its name is its UUID, and a number where its
bundle has one.
"""

from __future__ import annotations

from edge_agent.serving import ActivePipeline, NotServed


def check_version(active: ActivePipeline, version: str | None) -> None:
    """Raise NotServed unless no version is asked for, or the one that is served."""
    if version and version not in (served := versions_of(active)):
        there = " or ".join(f"'{each}'" for each in served)
        asked = f"version '{version[:60]}' of pipeline '{active.name}'"
        raise NotServed(f"{asked} is not served here: there is {there}", field="version")


def versions_of(active: ActivePipeline) -> list[str]:
    """The names of the version that is served; the first is its UUID."""
    number = active.loaded.spec.number
    return [active.version] if number is None else [active.version, str(number)]
