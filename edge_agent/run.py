"""`run_agent`: the whole agent as a program: doors open, pipelines loaded, loops running, until a signal says
stop.

`edgepack-agent run` and `edgepack serve` are this function with different arguments.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from durable.folder_lock import LOCK, FolderLock
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.http.listening import listen
from edge_agent.telemetry.events import event
from edgepack.errors import BadInput

if TYPE_CHECKING:
    from edge_agent.http.hot_path import HotPath
    from edge_agent.http.server import Limits
    from edge_agent.http.watch import Watch
    from edge_agent.telemetry.metrics import Metrics

log = logging.getLogger("edgepack.agent")

INTERRUPTED = 130  # what a program ends with on Ctrl-C


def run_agent(
    config: Config,
    bundles: Sequence[Path] = (),
    *,
    trial: bool = True,
    strict: bool = False,
    alone: bool = False,
    ready: Callable[[Agent, str], None] = lambda agent, url: None,
    stop: Stop | None = None,
) -> int:
    """Serve until SIGTERM (returns 0) or SIGINT (returns 130). `ready` is called once with the agent and its URL.

    `trial`, `strict` and `alone` are those of `Agent.begin`. `stop` is given by whoever has work of his own to do
    before, and listens for signals already. Raises BadInput for a data folder in use, a port in use, a bundle folder
    that is none.
    """
    from edge_agent.doors import make_app
    from edge_agent.http.server import Server
    from edge_agent.telemetry.metrics import Metrics

    with ExitStack() as stack:
        stop = stop or stack.enter_context(stopped_by_signal())
        listening = stack.enter_context(_reserved(config))  # before anything is written
        agent = stack.enter_context(Agent.open(config))
        agent.expect()
        metrics = Metrics()
        hot = _hot_path(config, agent, metrics, _watch(config, metrics, stack))
        limits = _limits(config)
        application = make_app(agent.serving, metrics)
        with Server(application, config.host, config.port, hot=hot, limits=limits, listening=listening) as server:
            agent.state.beat(url=server.url)
            agent.begin(bundles, trial=trial, strict=strict, alone=alone)
            stop.calmly()
            agent.start()
            _calm_collector()
            event(
                log,
                "serving",
                url=server.url,
                pipelines=",".join(agent.serving.names) or "none yet",
                data=config.data,
            )
            ready(agent, server.url)
            while not stop.wait():
                pass
            event(log, "stopping")
    return stop.code


def _hot_path(config: Config, agent: Agent, metrics: Metrics, watch: Watch | None) -> HotPath:
    """The way of inference requests, beside the application that answers all others."""
    from edge_agent.doors import TABLE
    from edge_agent.http.hot_path import HotPath

    return HotPath(
        TABLE,
        agent.serving,
        metrics,
        threads=max(1, config.infer_threads),
        queue=config.queue,
        watch=watch,
        most_bytes=config.body_bytes,
    )


def _limits(config: Config) -> Limits:
    """What the server takes from its clients."""
    from edge_agent.http.server import Limits

    return Limits(
        body_bytes=config.body_bytes,
        bodies_bytes=max(Limits.bodies_bytes, config.body_bytes),
        header_bytes=config.header_bytes,
        connections=max(1, config.connections),
        receive_s=config.receive_s,
        idle_s=config.idle_s,
        request_s=config.request_s,
    )


def _reserved(config: Config) -> socket.socket:
    """The port. Who has the data folder explains a port in use better than the port does."""
    try:
        return listen(config.host, config.port)
    except BadInput:
        if (config.data / LOCK).is_file():
            with FolderLock(config.data):
                pass
        raise


def _watch(config: Config, metrics: Metrics, stack: ExitStack) -> Watch | None:
    """Whoever sees each request end, if anybody does."""
    from edge_agent.http.watch import AccessLog, Watch, Witness
    from edge_agent.telemetry.trace_export import TraceExport

    witnesses: list[Witness] = [AccessLog()] if config.access_log else []
    if config.collector is not None:
        export = stack.enter_context(TraceExport(config.collector, {"host.name": config.name or socket.gethostname()}))
        metrics.exported = export.counts
        witnesses.append(export)
    return Watch(witnesses, begins=config.collector is not None) if witnesses else None


def _calm_collector() -> None:
    """Keep the garbage collector from what is there for good, and from looking every few requests: these make no
    cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Stop:
    """What a signal does: while the agent starts it ends the program at once, afterwards in order."""

    def __init__(self) -> None:
        self.code = 0
        self._is_calm = False
        self._event = threading.Event()

    def calmly(self) -> None:
        """From now on a signal is only noted. One that came before and got lost on its way is heard now."""
        self._is_calm = True
        if self._event.is_set():  # raised inside a callback whose errors Python ignores
            raise KeyboardInterrupt if self.code else SystemExit(0)

    def wait(self) -> bool:
        """Wait for a signal; False when it takes long (a wait without end would keep Python from its handlers)."""
        return self._event.wait(3600)

    def take(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.code = INTERRUPTED if number == signal.SIGINT else 0
        self._event.set()
        if not self._is_calm:
            raise KeyboardInterrupt if self.code else SystemExit(0)

    def recall(self, error: Exception) -> None:
        """End the program where a signal was heard before `error`: an import may make that of what `take` raised."""
        if self._event.is_set() and not self._is_calm:
            raise (KeyboardInterrupt if self.code else SystemExit(0)) from error


@contextmanager
def stopped_by_signal() -> Iterator[Stop]:
    """Listen for SIGINT and SIGTERM."""
    stop = Stop()
    before = {number: signal.signal(number, stop.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except Exception as error:
        stop.recall(error)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
