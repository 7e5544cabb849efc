"""Which version of a model a client asks for: by its UUID, or by a number where it has one.

One version stands for a pipeline's name; others of it may answer beside it, by their numbers. A pipeline that is a
program with models of its own is known by their names too, each with its versions.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.serving import LATEST, NotServed, Serving


def check_version(
    active: ActivePipeline, version: str | None, name: str | None = None, beside: Sequence[str] = ()
) -> None:
    """Raise NotServed unless no version is asked for, the latest, or one that is served under that name; the message
    lists those `beside` it too.
    """
    if version and version != LATEST and version not in (served := versions_of(active, name)):
        there = " or ".join(f"'{each}'" for each in dict.fromkeys([*served, *beside]))
        asked = f"version '{version[:60]}' of pipeline '{name or active.name}'"
        raise NotServed(f"{asked} is not served here: there is {there}", field="version")


def versions_of(active: ActivePipeline, name: str | None = None) -> list[str]:
    """The names of the version that is served; the first is its UUID. Of a program's model, its numbers: beside the
    UUID where the model has the program's own name, as the only one of a Cortex API does.
    """
    own = active.own_models.get(name or "", ())
    if own and name != active.name:
        return list(own)
    number = active.loaded.spec.number
    return [active.version, *([] if number is None else [str(number)]), *own]


def model_asked(active: ActivePipeline, name: str, version: str | None) -> dict[str, str | None]:
    """What a program is told of the model that a path names, and of its version; nothing where it names none."""
    own = active.own_models.get(name)
    if own is None:
        return {}
    return {"model": name, "version": version if version in (*own, LATEST) else None}


def named_as(active: ActivePipeline, name: str, version: str | None) -> tuple[str, str]:
    """Model and version that an answer names: of a program's model its own, as it was asked for, else the latest."""
    own = active.own_models.get(name, ())
    if not own or (name == active.name and version not in (*own, LATEST)):
        return active.name, active.version
    return name, version if version in own else own[-1]


def own_versions(serving: Serving, active: ActivePipeline) -> list[tuple[str, str]]:
    """Name and number of each version of a program's models, those that requests reach by their names."""
    owned = serving.owned
    return [
        (name, number)
        for name, numbers in sorted(active.own_models.items())
        if active.name in (name, owned.get(name))
        for number in numbers
    ]


def listed(serving: Serving, active: ActivePipeline, name: str) -> list[str]:
    """All versions of a model that may be asked for, whether they are in memory or not."""
    found = versions_of(active, name)
    return [*found, *(each for each in serving.numbers_of(name) if each not in found)]
