"""The messages between device, hub and operator, as JSON bodies.

The hub's OpenAPI document is made from these structs.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """The base of all messages: fields that are not known are refused."""


class TokenRequest(Message, frozen=True):
    """POST /api/v1/tokens: ask for a join token."""

    group: str | None = None
    expires_s: int = 86_400


class Token(Message, frozen=True):
    """A join token: shown once, used once. `expires_at` is in seconds since the epoch, by the hub's clock."""

    id: str
    token: str
    expires_at: int
    group: str | None = None


class EnrolRequest(Message, frozen=True):
    """POST /api/v1/enrol: `secret_sha256` is the hash of a secret that the device made and keeps.

    A device whose answer was lost asks again with the same token and hash and gets the same identity.
    """

    token: str
    name: str
    target: str
    secret_sha256: str


class Enrolment(Message, frozen=True):
    """The identity given: from now on the device authenticates as `Bearer <device>.<secret>`."""

    device: str
    name: str
    check_in_s: float


class Assigned(Message, frozen=True):
    """One pipeline of an assignment: `manifest` is the digest for the device's target, `repository` where to pull
    it.
    """

    manifest: str
    index: str
    repository: str


class Assignment(Message, frozen=True):
    """GET /api/v1/assignment: all that the device should run.

    A higher `sequence` replaces a lower one, never the other way.
    """

    device: str
    sequence: int
    pipelines: dict[str, Assigned]
    check_in_s: float


class AssignRequest(Message, frozen=True):
    """PUT /api/v1/assignments/{device}: pipeline → digest of the published index, or of a manifest in it."""

    pipelines: dict[str, str]


PipelineState = Literal["active", "fetching", "failed", "refused"]


class PipelineReport(Message, frozen=True):
    """What became of one assigned pipeline on the device."""

    manifest: str
    state: PipelineState
    reason: str | None = None


class Inventory(Message, frozen=True):
    """PUT /api/v1/inventory: what the device is and runs; sent when it changes and at each start."""

    target: str
    version: str
    sequence: int
    pipelines: dict[str, PipelineReport]


class Receipt(Message, frozen=True):
    """Answer to PUT /api/v1/segments/{device}/{epoch}/{n}: the segment is durable at the hub, the device may delete
    it.
    """

    device: str
    epoch: str
    segment: int
    digest: str
    rows: int


class DeviceView(Message, frozen=True):
    """One row of GET /api/v1/devices. `last_seen` is in seconds since the epoch, null before the first check-in."""

    id: str
    name: str
    target: str
    group: str | None
    enrolled_at: int
    last_seen: float | None
    assignment: Assignment | None
    inventory: Inventory | None


class PipelineView(Message, frozen=True):
    """One row of GET /api/v1/pipelines: a published index and its manifests by target."""

    pipeline: str
    index: str
    manifests: dict[str, str]
    version: str
    published_at: int


class Devices(Message, frozen=True):
    """GET /api/v1/devices: every enrolled device, by name; revoked ones are left out."""

    devices: list[DeviceView]


class Pipelines(Message, frozen=True):
    """GET /api/v1/pipelines: every published version, newest first."""

    pipelines: list[PipelineView]


class LogPage(Message, frozen=True):
    """GET /api/v1/logs: result rows (docs/agent-http.md) in the order in which they came to the hub, oldest first.

    `next` is the cursor behind what this page looked at: ask with it for what comes after, now or later. It is null
    when nothing lies behind the cursor that was asked with, so that one stays good.
    """

    rows: list[dict[str, Any]]
    next: str | None


class ErrorBody(Message, frozen=True):
    """Every error answer.

    `source` is `hub` or `agent`; `error` names what is wrong, with which field, and what to do.
    """

    code: int
    status: str
    error: str
    source: str
