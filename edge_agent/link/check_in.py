"""One check-in: ask the hub what to run, make it so, report what became of it.

`reconcile.plan` decides; this file carries out. One pipeline's fault never holds up another, and none stops
serving.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arch.target import Target
from edge_agent.activate import Activator, GaveUp, Stage, WrongAnswers
from edge_agent.link.fetch import Fetcher, NoRoom
from edge_agent.link.hub_client import HubClient
from edge_agent.link.reconcile import Action, Activate, Actual, Facts, Fetch, Keep, Refuse, Remove, objection, plan
from edge_agent.state import Quarantined, State, Verdict
from edge_agent.telemetry.events import event
from edgepack.errors import BadInput, EdgepackError, NotTrusted, RuntimeFailed, Unreachable
from fleet.messages import Assigned, Inventory, PipelineReport

log = logging.getLogger("edgepack.agent")


class CheckIn:
    """What one enrolled device does at each check-in. Used by one thread."""

    def __init__(
        self,
        hub: HubClient,
        fetcher: Fetcher,
        activator: Activator,
        stage: Stage,
        state: State,
        *,
        device: str,
        target: Target,
        version: str,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`version` is the agent's own."""
        self._hub = hub
        self._fetcher = fetcher
        self._activator = activator
        self._stage = stage
        self._state = state
        self._device = device
        self._target = target
        self._version = version
        self._stopping = stopping
        self._reports: dict[str, PipelineReport] = {}
        self._reported: Inventory | None = None
        self._problem: EdgepackError | None = None

    def step(self) -> float:
        """Check in once; returns the seconds until the next time. What is here already is activated also
        without the hub.

        Raises, after all has been tried, the first error that a later check-in may mend.
        """
        self._problem = None
        with self._noting():
            self._ask()
        self._reconcile(online=not isinstance(self._problem, Unreachable))
        with self._noting():
            self._report()
        if self._problem:
            raise self._problem
        return self._interval_s()

    def _ask(self) -> None:
        """Fetch the assignment and accept it if it may be."""
        answer = self._hub.assignment(self._state.etag())
        self._state.beat(last_check_in_ms=time.time_ns() // 1_000_000)
        if answer is None:
            return
        assignment, etag = answer
        if fault := objection(assignment, self._facts()):
            raise NotTrusted(fault)
        if assignment.sequence > self._state.floor():
            self._state.accept(assignment, etag)
            event(log, "assignment accepted", sequence=assignment.sequence, pipelines=len(assignment.pipelines))

    def _reconcile(self, *, online: bool) -> None:
        """Carry out the plan for the assignment that was accepted last."""
        assignment = self._state.assignment()
        if assignment is None:
            return
        actual = Actual(self._stage.serving(), self._activator.staged())
        self._reports = {name: each for name, each in self._reports.items() if name in assignment.pipelines}
        stuck: set[str] = set()
        for action in plan(assignment, actual, self._facts()):
            if self._stopping():
                return
            if action.name not in stuck and not self._carry_out(action, assignment.sequence, online):
                stuck.add(action.name)
        self._activator.collect(each.manifest for each in assignment.pipelines.values())

    def _carry_out(self, action: Action, sequence: int, online: bool) -> bool:
        """Returns False when nothing more can be done for this pipeline in this pass."""
        if isinstance(action, Remove):
            self._activator.remove(action.name)
        elif isinstance(action, Keep):
            self._reports[action.name] = PipelineReport(action.manifest, "active")
        elif isinstance(action, Refuse):
            self._reports[action.name] = self._refusal(action)
        elif online or isinstance(action, Activate):
            return self._install(action, sequence)
        else:
            return False
        return True

    def _install(self, action: Fetch | Activate, sequence: int) -> bool:
        name, assigned = action.name, action.assigned
        try:
            if isinstance(action, Fetch):
                self._fetch(name, assigned)
            else:
                self._activator.activate(name, assigned, sequence)
                self._reports[name] = PipelineReport(assigned.manifest, "active")
        except Unreachable as error:
            self._reports[name] = PipelineReport(assigned.manifest, "fetching", str(error))
            self._problem = self._problem or error
            return False
        except (EdgepackError, OSError) as error:
            self._failed(name, assigned, sequence, error)
            return False
        return True

    def _fetch(self, name: str, assigned: Assigned) -> None:
        self._reports[name] = PipelineReport(assigned.manifest, "fetching")
        self._report()
        begun = time.monotonic()
        bundle = self._fetcher.fetch(name, assigned)
        try:
            self._activator.unpack(bundle)
        except NotTrusted as error:
            # each blob was right when it came, so it is this disk that cannot be trusted: not the bundle's
            # fault
            self._fetcher.discard_damaged(assigned.manifest)
            raise RuntimeFailed(f"bundle of pipeline '{name}' was damaged on this disk: {error}") from error
        took_s = round(time.monotonic() - begun, 2)
        event(
            log,
            "bundle fetched",
            pipeline=name,
            manifest=assigned.manifest,
            size_bytes=bundle.size_bytes,
            took_s=took_s,
        )

    def _failed(self, name: str, assigned: Assigned, sequence: int, error: EdgepackError | OSError) -> None:
        """Note why a version did not become active. What cannot get better is not tried again under this
        sequence.
        """
        keeping, before = self._stage.serving().get(name), self._reports.get(name)
        reason = f"{error}; keeping {keeping}" if keeping else str(error)
        if isinstance(error, GaveUp) and before and before.manifest == assigned.manifest and before.reason:
            reason = f"{error}: {before.reason}"
        found = verdict(error)
        self._reports[name] = PipelineReport(assigned.manifest, found or "failed", reason)
        if found:
            self._state.quarantine(assigned.manifest, Quarantined(sequence, found, reason))
            event(log, "bundle not activated", level=logging.ERROR, pipeline=name, verdict=found, reason=reason)
        else:
            # a full disk, a crash under load: tried again with back-off, as after an outage
            self._problem = self._problem or RuntimeFailed(reason)

    def _refusal(self, refuse: Refuse) -> PipelineReport:
        quarantined = self._state.quarantined().get(refuse.manifest)
        return PipelineReport(refuse.manifest, quarantined.verdict if quarantined else "refused", refuse.reason)

    def _report(self) -> None:
        """Tell the hub, unless it was told the same already."""
        serving = {name: PipelineReport(manifest, "active") for name, manifest in self._stage.serving().items()}
        said = dict(sorted({**serving, **self._reports}.items()))
        inventory = Inventory(str(self._target), self._version, self._state.floor(), said)
        if inventory != self._reported:
            self._hub.report(inventory)
            self._reported = inventory

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep the first problem of a pass, and go on."""
        try:
            yield
        except EdgepackError as error:
            self._problem = self._problem or error

    def _facts(self) -> Facts:
        return Facts(self._device, self._state.assignment(), self._state.quarantined())

    def _interval_s(self) -> float:
        assignment, enrolled = self._state.assignment(), self._state.enrolment()
        asked = assignment.check_in_s if assignment else enrolled.check_in_s if enrolled else 60.0
        return min(max(asked, 0.1), 86_400.0) * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing


def verdict(error: Exception) -> Verdict | None:
    """What an error says about a bundle: refused, failed for good, or (None) nothing that a later try could
    not change.
    """
    if isinstance(error, NotTrusted | BadInput):
        return "refused"
    if isinstance(error, WrongAnswers):
        return "failed"
    if isinstance(error, NoRoom | RuntimeFailed | OSError):
        return None
    return "failed"
