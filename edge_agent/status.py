"""What an agent's data folder says about it, read beside the agent, whether that runs or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from arch.providers import Choice
from bundle.bundle import version_of
from edge_agent.activate import made_of
from edge_agent.config import Config
from edge_agent.folders import Folders
from edge_agent.state import LIVE_NOTE, PROVIDER_NOTE, SANDBOX_NOTE, Enrolled, State
from fleet.messages import Assignment
from runtimes.sandbox import level_of_this_kernel

_ANSWER_S = 2.0  # how long an agent on this machine may take to say that it lives


@dataclass(frozen=True)
class PipelineStatus:
    """One pipeline that is active or assigned. `state` is what it is towards the assignment."""

    name: str
    state: str
    manifest: str
    version: str
    previous: str | None
    reason: str | None
    pending_rows: int
    sent_rows: int
    refused_segments: int
    sandbox: dict[str, str] = field(default_factory=dict)  # step → how confined its process was when it was loaded
    providers: dict[str, Choice] = field(default_factory=dict)  # model → what it computes on


@dataclass(frozen=True)
class Status:
    """One device. Times are in ms since the epoch, by this device's clock."""

    device: str | None
    name: str | None
    hub: str | None
    running: bool
    url: str | None
    sequence: int
    last_check_in_ms: int | None
    sandbox: str  # how confined users' code can be on this kernel; see `runtimes.sandbox`
    sandbox_policy: str  # of the agent that ran last: required, or best
    errors: dict[str, str] = field(default_factory=dict)
    pipelines: list[PipelineStatus] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)  # that are followed → why their newest files do not serve

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)


def read_status(data: Path) -> Status:
    """Read it. Raises BadInput when no agent has ever run on this folder."""
    state = State.read(Folders(data).state)
    try:
        pulse: dict[str, Any] = state.pulse()
        who: Enrolled | None = state.enrolment()
        url = pulse.get("url")
        return Status(
            device=who.device if who else None,
            name=who.name if who else None,
            hub=who.hub if who else None,
            running=answers(url) if url else False,
            url=url,
            sequence=state.floor(),
            last_check_in_ms=pulse.get("last_check_in_ms"),
            sandbox=level_of_this_kernel(),
            sandbox_policy=pulse.get("sandbox_policy") or Config.sandbox,
            errors=pulse.get("errors") or {},
            pipelines=_pipelines(state, pulse, Folders(data)),
            models={
                key.removeprefix(LIVE_NOTE): str(reason)
                for key, reason in sorted(pulse.items())
                if key.startswith(LIVE_NOTE) and reason
            },
        )
    finally:
        state.close()


def answers(url: str) -> bool:
    """Whether an agent says at this address that it lives."""
    try:
        with urllib3.PoolManager(retries=False, timeout=_ANSWER_S) as pool:
            return pool.request("GET", f"{url}/healthz", redirect=False).status == 200
    except (urllib3.exceptions.HTTPError, OSError):
        return False


def _pipelines(state: State, pulse: dict[str, Any], folders: Folders) -> list[PipelineStatus]:
    installed, assignment = state.installed(), state.assignment()
    names = {*installed, *(assignment.pipelines if assignment else {})}
    return [_pipeline(state, name, assignment, pulse, folders) for name in sorted(names)]


def _pipeline(
    state: State, name: str, assignment: Assignment | None, pulse: dict[str, Any], folders: Folders
) -> PipelineStatus:
    here, sent = state.installed().get(name), state.sent(name)
    wanted = assignment.pipelines.get(name) if assignment else None
    shown = here.active if here else wanted
    quarantined = state.quarantined().get(wanted.manifest) if wanted else None
    is_wanted = here is not None and (
        wanted is None or wanted.manifest in (here.active.manifest, made_of(folders, here.active.manifest))
    )
    return PipelineStatus(
        name=name,
        state="active" if is_wanted else quarantined.verdict if quarantined else "fetching",
        manifest=shown.manifest if shown else "",
        version=version_of(shown.index) if shown else "",
        previous=here.previous.manifest if here and here.previous else None,
        reason=quarantined.reason if quarantined and not is_wanted else None,
        pending_rows=(pulse.get("pending_rows") or {}).get(name, 0),
        sent_rows=sent.rows,
        refused_segments=sent.refused_segments,
        sandbox=pulse.get(f"{SANDBOX_NOTE}{name}") or {},
        providers=choices(pulse).get(name, {}),
    )


def choices(pulse: Mapping[str, Any]) -> dict[str, dict[str, Choice]]:
    """What the models of each pipeline compute on, as the agent has noted it: pipeline → model → choice."""
    return {
        key.removeprefix(PROVIDER_NOTE): msgspec.convert(noted, dict[str, Choice])
        for key, noted in pulse.items()
        if key.startswith(PROVIDER_NOTE) and noted
    }
