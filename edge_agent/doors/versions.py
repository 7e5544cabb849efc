"""Which version of a model a client asks for: by its UUID, or by a number where it has one.

One version stands for a pipeline's name; others of it may answer beside it, by their numbers. A pipeline that is a
program with models of its own is known by their names too, each with its versions.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.active_pipeline import ActivePipeline
from edge_agent.serving import NotServed, Serving

LATEST = "latest"


def check_version(
    active: ActivePipeline, version: str | None, name: str | None = None, beside: Sequence[str] = ()
) -> None:
    """Raise NotServed unless no version is asked for, or one that is served under that name; the message lists those
    `beside` it too.
    """
    if version and version not in (served := versions_of(active, name)):
        there = " or ".join(f"'{each}'" for each in dict.fromkeys([*served, *beside]) if each != LATEST)
        asked = f"version '{version[:60]}' of pipeline '{name or active.name}'"
        raise NotServed(f"{asked} is not served here: there is {there}", field="version")


def versions_of(active: ActivePipeline, name: str | None = None) -> list[str]:
    """The names of the version that is served; the first is its UUID. Of a program's model, its numbers."""
    if name is not None and name != active.name and name in active.own_models:
        return [*active.own_models[name], LATEST]
    number = active.loaded.spec.number
    return [active.version] if number is None else [active.version, str(number)]


def listed(serving: Serving, active: ActivePipeline, name: str) -> list[str]:
    """All versions of a model that may be asked for, whether they are in memory or not."""
    found = [each for each in versions_of(active, name) if each != LATEST]
    return [*found, *(each for each in serving.numbers_of(name) if each not in found)]
