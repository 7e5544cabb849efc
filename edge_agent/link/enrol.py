"""Joining a fleet: one token, once, for an identity whose secret never leaves the device."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from arch.target import Target, host_target
from bundle.pipeline import dns_label, legal_name
from durable.folder_lock import FolderLock
from edge_agent.folders import Folders
from edge_agent.link.hub_client import HttpHub, Refused, checked_url
from edge_agent.link.identity import Identity
from edge_agent.state import Enrolled, State
from edgepack.errors import BadInput
from fleet.credentials import device_bearer, hash_secret
from fleet.messages import EnrolRequest


@dataclass(frozen=True)
class Enrolment:
    """What became of asking: the identity, and whether it was there before."""

    enrolled: Enrolled
    already: bool


class Membership(Protocol):
    """What enrolling reads and changes; `State` is one."""

    def enrolment(self) -> Enrolled | None:
        """Return the enrolment in force."""

    def enrol(self, enrolled: Enrolled) -> None:
        """Take on an identity, durably."""


class _LaterState:
    """The state of a data folder in which nothing is made before there is an identity to keep."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def enrolment(self) -> Enrolled | None:
        if not self._folders.state.exists():
            return None
        with contextlib.closing(State.open(self._folders.state)) as state:
            return state.enrolment()

    def enrol(self, enrolled: Enrolled) -> None:
        self._folders.make()
        with contextlib.closing(State.open(self._folders.state)) as state:
            state.enrol(enrolled)


@contextlib.contextmanager
def joining(folders: Folders) -> Iterator[Membership]:
    """A data folder, perhaps a new one, for the time of one `enrol`. A new one is gone again when that is refused;
    when the hub did not answer its `identity/` stays, for the same secret must be offered again.
    """
    new = [path for path in (folders.identity, folders.root, *folders.root.parents) if not path.exists()]
    folders.make_identity()
    try:
        yield _LaterState(folders)
    except BadInput:
        _take_back(new, folders.identity)
        raise


def _take_back(new: list[Path], identity: Path) -> None:
    if identity in new:
        with contextlib.suppress(BadInput), FolderLock(identity):  # else somebody else is joining with it
            if [path.name for path in identity.iterdir()] == ["lock"]:
                (identity / "lock").unlink()
    for path in new:
        with contextlib.suppress(OSError):  # not empty: it is in use
            path.rmdir()


def default_name() -> str:
    """The host's name, made a DNS label."""
    return legal_name(socket.gethostname().partition(".")[0])


def enrol(
    folders: Folders,
    state: Membership,
    hub: str,
    token: str,
    *,
    name: str | None = None,
    ca: Path | None = None,
    force: bool = False,
    target: Target | None = None,
) -> Enrolment:
    """Get an identity at a hub with a join token.

    `target` is what this device runs, by default the machine's plain one. Safe to repeat after a lost answer: the
    same secret is offered again. Raises BadInput for a token that is wrong, used or expired, and when another hub's
    identity is in force and `force` is not given; Unreachable when the hub does not answer.
    """
    url = checked_url(hub)
    chosen = dns_label(name) if name else default_name()
    with FolderLock(folders.identity):
        present = state.enrolment()
        if present and not force:
            return _stay(present, url)
        identity = Identity(folders.identity)
        secret, is_new = identity.pending(present.secret_sha256 if present else None)
        request = EnrolRequest(token, chosen, str(target or host_target()), hash_secret(secret))
        try:
            if ca:
                identity.keep_ca(request.secret_sha256, ca)
            enrolled = _ask(url, request, ca)
        except BadInput:
            if is_new:
                identity.forget(request.secret_sha256)
            raise
        state.enrol(enrolled)
        identity.forget_all_but(enrolled.secret_sha256)
    return Enrolment(enrolled, already=False)


def open_hub(folders: Folders, enrolled: Enrolled) -> HttpHub:
    """Return the client that speaks with the device's identity. Raises BadInput when its secret is gone."""
    bearer, ca = bearer_of(folders.identity, enrolled), ca_of(folders.identity, enrolled)
    return HttpHub(enrolled.hub, device=enrolled.device, bearer=bearer, ca_file=ca)


def bearer_of(identity: Path, enrolled: Enrolled) -> str:
    """What the device says to prove who it is, to API and registry alike."""
    return device_bearer(enrolled.device, Identity(identity).secret(enrolled.secret_sha256))


def ca_of(identity: Path, enrolled: Enrolled) -> Path | None:
    """The CA that was given at enrolment, for API and registry alike."""
    return Identity(identity).ca(enrolled.secret_sha256)


def _stay(present: Enrolled, url: str) -> Enrolment:
    if present.hub != url:
        raise BadInput(
            f"this device is '{present.name}' at hub '{present.hub}' already: use --force to leave it for '{url}'",
            field="hub",
        )
    return Enrolment(present, already=True)


def _ask(url: str, request: EnrolRequest, ca: Path | None) -> Enrolled:
    hub = HttpHub(url, ca_file=ca)
    try:
        given = hub.enrol(request)
    except Refused as error:
        raise BadInput(str(error), field="token") from error
    finally:
        hub.close()
    return Enrolled(url, given.device, given.name, given.check_in_s, request.secret_sha256)
