"""What to do so that the device runs what it was assigned: pure rules, no I/O.

Rules:
- an assignment for another device, below the floor, or different under the same sequence is not applied
- sequence 0 says that nothing was ever assigned: what runs stays, be it baked into the image
- a manifest in quarantine is refused until it is assigned anew, which shows as another sequence
- removals come first, they free room; then each pipeline in the order of names
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bundle.pipeline import dns_label
from edge_agent.state import Quarantined
from edgepack.errors import BadInput, NotTrusted
from fleet.messages import Assigned, Assignment
from oci.digest import Digest


@dataclass(frozen=True)
class Fetch:
    """Bring the bundle's missing blobs here."""

    name: str
    assigned: Assigned


@dataclass(frozen=True)
class Activate:
    """Unpack, try, switch to it."""

    name: str
    assigned: Assigned


@dataclass(frozen=True)
class Keep:
    """It serves already."""

    name: str
    manifest: str


@dataclass(frozen=True)
class Remove:
    """It is no longer assigned."""

    name: str


@dataclass(frozen=True)
class Refuse:
    """It is not tried (again); what serves under that name goes on."""

    name: str
    manifest: str
    reason: str


Action = Fetch | Activate | Keep | Remove | Refuse


@dataclass(frozen=True)
class Actual:
    """What is here: manifest by name of what serves, and the manifests whose bundle folder is whole."""

    serving: Mapping[str, str]
    staged: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Facts:
    """What the device remembers: who it is, the assignment it accepted last, what is in quarantine."""

    device: str
    accepted: Assignment | None = None
    quarantined: Mapping[str, Quarantined] = field(default_factory=dict)


def plan(assignment: Assignment | None, actual: Actual, facts: Facts) -> tuple[Action, ...]:
    """Return the actions, in order, that lead from what is here to what is assigned."""
    if assignment is None or assignment.sequence < 1 or objection(assignment, facts):
        return tuple(Keep(name, manifest) for name, manifest in sorted(actual.serving.items()))
    removed = [Remove(name) for name in sorted(actual.serving) if name not in assignment.pipelines]
    wanted = sorted(assignment.pipelines.items())
    actions = [
        action for name, assigned in wanted for action in _towards(name, assigned, assignment.sequence, actual, facts)
    ]
    return (*removed, *actions)


def objection(assignment: Assignment, facts: Facts) -> str | None:
    """Say why an assignment must not be applied at all; None when it may."""
    if assignment.device != facts.device:
        return f"the hub sent an assignment of device '{assignment.device[:64]}', this is '{facts.device}'"
    accepted = facts.accepted
    if accepted is None or assignment.sequence > accepted.sequence:
        return None
    if assignment.sequence < accepted.sequence:
        return (
            f"the hub sent assignment {assignment.sequence}, this device holds {accepted.sequence}: "
            "a lower one is never applied"
        )
    if assignment.pipelines != accepted.pipelines:
        return f"the hub sent assignment {assignment.sequence} with other contents than before: assign anew"
    return None


def _towards(name: str, assigned: Assigned, sequence: int, actual: Actual, facts: Facts) -> Iterator[Action]:
    quarantined = facts.quarantined.get(assigned.manifest)
    if fault := _illegal(name, assigned):
        yield Refuse(name, assigned.manifest, fault)
    elif actual.serving.get(name) == assigned.manifest:
        yield Keep(name, assigned.manifest)
    elif quarantined and quarantined.sequence == sequence:
        yield Refuse(name, assigned.manifest, quarantined.reason)
    else:
        if assigned.manifest not in actual.staged:
            yield Fetch(name, assigned)
        yield Activate(name, assigned)


def _illegal(name: str, assigned: Assigned) -> str | None:
    # the name becomes a folder and a route, the digest a file name: both come from outside
    try:
        dns_label(name)
        Digest.parse(assigned.manifest)
        Digest.parse(assigned.index)
    except (BadInput, NotTrusted) as error:
        return str(error)
    return None
