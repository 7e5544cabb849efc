"""`Agent`: the device's side of the house, put together: what serves, what it remembers, and the loops that
talk to the hub.

A table of contents: serving begins from what is on disk, before the hub is asked anything; then one loop
checks in and one brings the log home. Neither can stop the serving. HTTP doors and signals stand outside, in
`edge_agent.run`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Protocol
from urllib.parse import urlsplit

from arch.facts import Facts, read_facts
from arch.target import Target
from bundle.bundle import version_of
from bundle.golden import Comparison
from bundle.pipeline import PipelineSpec
from durable.folder_lock import FolderLock
from edge_agent.activate import Activator
from edge_agent.config import Config, target_of
from edge_agent.fit import objections, sandbox_objection
from edge_agent.folders import Folders
from edge_agent.imports import bundles_in_layouts, import_layout
from edge_agent.inference_log.spools import Spools
from edge_agent.link.check_in import CheckIn
from edge_agent.link.enrol import bearer_of, ca_of, default_name, enrol, open_hub
from edge_agent.link.fetch import BlobSource, Fetcher
from edge_agent.link.hub_client import HubClient, checked_url
from edge_agent.link.sync import Sync
from edge_agent.link.trust import DigestsOnly, Trust
from edge_agent.live.folder import LiveFolder
from edge_agent.live.making import Source
from edge_agent.live.models import LiveModels
from edge_agent.live.versions import Budget
from edge_agent.loop import Backoff, Loop
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.repository import Repository
from edge_agent.pipelines.serving import Serving
from edge_agent.state import LIVE_NOTE, PROVIDER_NOTE, SANDBOX_NOTE, Enrolled, State, Tuning
from edge_agent.telemetry.events import event
from edgepack import __version__
from edgepack.errors import BadInput, EdgepackError
from fleet.messages import Assigned
from runtimes.cpus import using_threads
from runtimes.pipeline import LoadedPipeline
from runtimes.providers import keeping_compiled
from runtimes.sandbox import level_of_this_kernel
from runtimes.trial import run_trial

log = logging.getLogger("edgepack.agent")

_ENROLMENT_POLL_S = 2.0  # how soon an `edgepack-agent enrol` beside a running agent is noticed


class Hub(HubClient, Protocol):
    """A hub whose connections can be closed."""

    def close(self) -> None:
        """Close them."""


class Registry(BlobSource, Protocol):
    """A registry whose connections can be closed."""

    def close(self) -> None:
        """Close them."""


@dataclass(frozen=True)
class Connection:
    """The hub and its registry, as one enrolled device speaks with them."""

    hub: Hub
    registry: Registry

    def close(self) -> None:
        """Close all connections."""
        self.hub.close()
        self.registry.close()


def connect(folders: Folders, enrolled: Enrolled, stop: threading.Event) -> Connection:
    """Open both with the device's identity. Raises BadInput when its secret is gone."""
    from oci import registry
    from oci.credentials import Bearer

    credentials = Bearer(bearer_of(folders.identity, enrolled))
    # few attempts at once: the check-in loop tries again, with back-off, and blobs are resumed
    blobs = registry.Registry(
        urlsplit(enrolled.hub).netloc,
        credentials,
        attempts=3,
        sleep=stop.wait,
        ca_file=ca_of(folders.identity, enrolled),
    )
    return Connection(open_hub(folders, enrolled), blobs)


class ServingStage:
    """Loads bundle folders into `Serving`; see `activate.Stage`."""

    def __init__(
        self,
        serving: Serving,
        spools: Spools,
        partition: Callable[[], str],
        environments: Path | None = None,
        tuned: Callable[[str], Tuning | None] = lambda manifest: None,
        note: Callable[[str, LoadedPipeline | None], None] = lambda name, loaded: None,
        compiled: Path | None = None,
    ) -> None:
        """`note` is told which pipeline answers under a name, None when none does any more; `compiled` is where
        providers keep what they compile, by bundle.
        """
        self._serving = serving
        self._tuned, self._note = tuned, note
        self._environments, self._compiled = environments, compiled
        self._spools = spools
        self._partition = partition

    def load(self, name: str, folder: Path, version: Assigned) -> Callable[[], None]:
        """See Stage."""
        active = self._loaded(name, folder, version)

        def switch() -> None:
            self._spools.open(name, active.loaded.spec.log).change_policy(active.loaded.spec.log)
            self._serving.switch(name, active)
            self._note(name, active.loaded)

        return switch

    def load_beside(self, name: str, folder: Path, version: Assigned) -> Callable[[], None]:
        """See Stage."""
        return partial(self._serving.add, name, self._loaded(name, folder, version))

    def _loaded(self, name: str, folder: Path, version: Assigned) -> ActivePipeline:
        with ExitStack() as undo:
            tuning = self._tuned(version.manifest)
            kept = self._compiled / folder.name if self._compiled else None
            with using_threads(tuning.threads if tuning else None), keeping_compiled(kept):
                loaded = LoadedPipeline.open(folder, self._environments, tuning.replicas if tuning else None)
            loaded.at_once = tuning.at_once if tuning else 0
            undo.callback(loaded.close)
            _tell_providers(name, loaded)
            _tell_workers(name, loaded)
            spool = self._spools.open(name, loaded.spec.log)
            active = ActivePipeline(name, version_of(version.index), version.manifest, loaded, spool, self._partition())
            undo.pop_all()
        return active

    def remove(self, name: str) -> None:
        """See Stage."""
        self._serving.remove(name)
        self._note(name, None)

    def serving(self) -> dict[str, str]:
        """See Stage."""
        # what a client has unloaded is as it should be: it is not activated again by itself
        return {**self._serving.unloaded, **{each.name: each.base for each in self._serving.pipelines}}


def _tell_workers(name: str, loaded: LoadedPipeline) -> None:
    """Say how confined each process of a step is, and what it takes."""
    for worker in loaded.workers:
        memory_mib = worker.pss_bytes >> 20
        event(log, "worker started", pipeline=name, step=worker.job.name, sandbox=worker.sandbox, pss_mib=memory_mib)


def _tell_providers(name: str, loaded: LoadedPipeline) -> None:
    """Say which providers are not used that the image was built for: a line a reason, whatever the number of steps."""
    refused: dict[tuple[str, str], list[str]] = {}
    for step, choice in loaded.providers.items():
        for skipped in choice.skipped.items():
            refused.setdefault(skipped, []).append(step)
    for (provider, reason), steps in refused.items():
        event(
            log,
            "execution provider not used",
            level=logging.WARNING,
            pipeline=name,
            step=",".join(steps),
            provider=provider,
            reason=reason,
        )


@dataclass(frozen=True)
class _Session:
    """What the loops use as long as the same identity is in force."""

    enrolled: Enrolled
    connection: Connection
    check_in: CheckIn
    sync: Sync


class Agent:
    """One agent on one data folder. `open` makes it, `begin` serves, `start` and `stop` run the loops."""

    def __init__(
        self,
        config: Config,
        folders: Folders,
        state: State,
        *,
        target: Target,
        trust: Trust,
        trial: Callable[[Path], Comparison],
        connect: Callable[[Folders, Enrolled, threading.Event], Connection],
        sandbox: str = "",
    ) -> None:
        self.config = config
        self.state = state
        self.serving = Serving()
        self.spools = Spools(folders.spools, self._partition)
        self.target = target
        self._folders = folders
        self._trust = trust
        self._connect = connect
        self._sandbox = sandbox or level_of_this_kernel()
        self._stage = ServingStage(
            self.serving,
            self.spools,
            self._partition,
            folders.environments,
            state.tuning,
            self._note_loaded,
            folders.compiled,
        )
        self._activator = Activator(folders, state, self._stage, trial, self._admit)
        if config.model_control == "explicit":
            self.serving.control = Repository(self.serving, self._activator)
        self._live: LiveModels | None = None
        self._session: _Session | None = None
        self._session_lock = threading.Lock()
        self._stopped = threading.Event()
        self._errors: dict[str, str] = {}
        self._pending: dict[str, int] = {}
        backoff = Backoff(config.backoff_first_s, config.backoff_cap_s)
        self._check_in = Loop("check-in", self._check_in_once, backoff, lambda error: self._noted("check-in", error))
        self._sync = Loop("sync", self._sync_once, backoff, lambda error: self._noted("sync", error))

    @classmethod
    @contextmanager
    def open(
        cls,
        config: Config,
        *,
        target: Target | None = None,
        trust: Trust | None = None,
        trial: Callable[[Path], Comparison] | None = None,
        connect: Callable[[Folders, Enrolled, threading.Event], Connection] = connect,
        sandbox: str = "",
    ) -> Iterator[Agent]:
        """Take the data folder. Raises BadInput when another process has it, it cannot be written, or the
        hub's URL is none. `sandbox` is the level that this kernel allows; by default it is asked.
        """
        if config.hub:
            checked_url(config.hub)
        folders = Folders(config.data).make()
        with ExitStack() as stack:
            stack.enter_context(FolderLock(folders.root))
            state = State.open(folders.state)
            stack.callback(state.close)
            agent = cls(
                config,
                folders,
                state,
                target=target or target_of(config),
                trust=trust or DigestsOnly(),
                trial=trial or (lambda folder: run_trial(folder, config.trial_s, folders.environments)),
                connect=connect,
                sandbox=sandbox,
            )
            stack.callback(agent.spools.close)
            stack.callback(agent.serving.close)
            stack.callback(agent.stop)
            yield agent

    def expect(self) -> None:
        """Say what is about to be loaded, for requests that come in meanwhile."""
        self.serving.expect(self.state.installed())

    def begin(
        self, bundles: Iterable[Path] = (), *, trial: bool = True, strict: bool = False, alone: bool = False
    ) -> None:
        """Serve what was active when the agent last ran; then what came with the image, unless the hub
        decides already.

        With `alone` nothing but these bundles is served. Raises what is wrong with a bundle folder if `strict`, or if
        without it nothing serves and no hub could send anything better.
        """
        folders = list(bundles)
        brought = bundles_in_layouts(folders, self.state, self.target)
        # who asks for just these bundles must not be answered by what a folder held before
        self._activator.restore(set(brought.values()) if alone else None)
        self.serving.expect(brought)
        for folder in folders:
            try:
                import_layout(folder, self._activator, self.state, self._stage.serving(), self.target, trial=trial)
            except EdgepackError as error:
                if strict or not (self.serving.names or self.has_hub):
                    raise
                event(log, "bundle folder not taken", level=logging.ERROR, folder=folder, reason=str(error))
        self.serving.expect(())
        self._collect()

    def live_models(
        self, sources: Sequence[Source], *, interval_s: float, budget: Budget | None = None, trial: bool = True
    ) -> LiveModels:
        """What follows models that change where they lie; see LiveModels. It ends with the agent."""
        self._live = LiveModels(
            self.serving, self._activator, self.state, self.target, sources,
            collect=self._collect, interval_s=interval_s, budget=budget, trial=trial,
        )  # fmt: skip
        return self._live

    def _collect(self) -> None:
        """Delete what neither serves nor is assigned."""
        assignment = self.state.assignment()
        self._activator.collect(each.manifest for each in (assignment.pipelines.values() if assignment else ()))

    @property
    def has_hub(self) -> bool:
        """Whether a hub is known that this device belongs to, or is to join."""
        return self.state.enrolment() is not None or bool(self.config.hub and self.config.token)

    def start(self) -> None:
        """Begin to talk to the hub, once there is one."""
        started_ms = time.time_ns() // 1_000_000
        # what an earlier process ended with, perhaps killed, says nothing of this one
        over = dict.fromkeys(each for each in self.state.pulse() if each.startswith(LIVE_NOTE))
        self.state.beat(started_ms=started_ms, pid=os.getpid(), sandbox_policy=self.config.sandbox, errors={}, **over)
        present = self.state.enrolment()
        if present and self.config.hub and checked_url(self.config.hub) != present.hub:
            event(
                log,
                "this device belongs to another hub than it is told; to leave it: edgepack-agent enrol --force",
                level=logging.WARNING,
                hub=present.hub,
                told=self.config.hub,
            )
        self._check_in.start()
        self._sync.start()
        if self.config.models is not None:
            work = self._folders.root / "live"
            rmtree(work, ignore_errors=True)
            source = LiveFolder(self.config.models, work, self._folders.bundle, lambda: self.serving.pipelines)
            is_followed = self.config.models_s > 0
            self.live_models([source], interval_s=self.config.models_s if is_followed else Config.models_s).start(
                follow=is_followed
            )

    def stop(self) -> None:
        """End the loops; what they had begun is made good at the next start."""
        self._stopped.set()
        loops = [self._check_in, self._sync, *([self._live.loop] if self._live is not None else [])]
        for loop in loops:
            loop.stop()
        end = time.monotonic() + self.config.stop_s
        for loop in loops:
            loop.join(max(0.0, end - time.monotonic()))
        self._disconnect()
        with suppress(EdgepackError):
            self._note_pending()

    def _check_in_once(self) -> float:
        self._enrol_if_told()
        session = self._connected()
        return session.check_in.step() if session else _ENROLMENT_POLL_S

    def _sync_once(self) -> float:
        self._note_pending()
        session = self._connected()
        if session:
            session.sync.send_all()
            self._note_pending()
        return self.config.seal_s

    def _note_pending(self) -> None:
        pending = self.spools.pending_rows()
        if pending != self._pending:
            self.state.beat(pending_rows=pending)
            self._pending = pending

    def _enrol_if_told(self) -> None:
        """Join with the token from flags or environment. Told again later, the identity that is there stays."""
        config, present = self.config, self.state.enrolment()
        if present is None and config.hub and config.token:
            given = enrol(
                self._folders, self.state, config.hub, config.token, name=config.name, ca=config.ca, target=self.target
            )
            event(
                log,
                "enrolled",
                device=given.enrolled.device,
                name=given.enrolled.name,
                hub=given.enrolled.hub,
            )

    def _connected(self) -> _Session | None:
        """The session of the identity in force: made anew when `edgepack-agent enrol` has changed it."""
        with self._session_lock:
            enrolled = self.state.enrolment()
            if enrolled is None:
                return None
            if self._session is None or self._session.enrolled != enrolled:
                self._disconnect()
                self._session = self._new_session(enrolled)
            return self._session

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.connection.close()
            self._session = None

    def _new_session(self, enrolled: Enrolled) -> _Session:
        connection = self._connect(self._folders, enrolled, self._stopped)
        fetcher = Fetcher(
            self._folders,
            connection.registry,
            self.target,
            self._trust,
            reserve_bytes=self.config.reserve_bytes,
            objections=partial(self._objections, read_facts()),
        )
        check_in = CheckIn(
            connection.hub,
            fetcher,
            self._activator,
            self._stage,
            self.state,
            device=enrolled.device,
            target=self.target,
            version=__version__,
            stopping=self._stopped.is_set,
        )
        sync = Sync(self.spools.all, connection.hub, self.state, stopping=self._stopped.is_set)
        return _Session(enrolled, connection, check_in, sync)

    def _objections(self, facts: Facts, spec: PipelineSpec, size_bytes: int) -> list[str]:
        """What speaks against a pipeline before its files are pulled."""
        required = self.config.sandbox == "required"
        sandbox = sandbox_objection(spec, self._sandbox, required=required)
        return [*objections(spec, size_bytes, facts), *([sandbox] if sandbox else [])]

    def _admit(self, spec: PipelineSpec) -> None:
        """Raise BadInput for a pipeline that may not run on this machine."""
        required = self.config.sandbox == "required"
        if objection := sandbox_objection(spec, self._sandbox, required=required):
            raise BadInput(f"pipeline '{spec.name}' may not run here: {objection}")

    def _note_loaded(self, name: str, loaded: LoadedPipeline | None) -> None:
        """For `edgepack-agent status`: how confined the processes of a pipeline are, what its models compute on."""
        sandboxes = {worker.job.name: worker.sandbox for worker in loaded.workers} if loaded else None
        providers = loaded.providers if loaded else None
        self.state.beat(**{f"{SANDBOX_NOTE}{name}": sandboxes, f"{PROVIDER_NOTE}{name}": providers})

    def _partition(self) -> str:
        enrolled = self.state.enrolment()
        return enrolled.name if enrolled else default_name()

    def _noted(self, loop: str, error: str | None) -> None:
        """Write down what a loop says; when one gets through again, the other need not wait any longer."""
        before = self._errors.pop(loop, None)
        if error:
            self._errors[loop] = error
        if before != error:
            self.state.beat(errors=dict(self._errors))
        if before and not error:
            (self._sync if loop == "check-in" else self._check_in).wake()
