"""`run_agent`: the whole agent as a program: doors open, pipelines loaded, loops running, until a signal says
stop.

`edgepack-agent run` and `edgepack serve` are this function with different arguments.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.events import event

log = logging.getLogger("edgepack.agent")

INTERRUPTED = 130  # what a program ends with on Ctrl-C


def run_agent(
    config: Config,
    bundles: Sequence[Path] = (),
    *,
    trial: bool = True,
    strict: bool = False,
    ready: Callable[[Agent, str], None] = lambda agent, url: None,
) -> int:
    """Serve until SIGTERM (returns 0) or SIGINT (returns 130). `ready` is called once with the agent and its URL.

    `trial` and `strict` are those of `Agent.begin`. Raises BadInput for a data folder in use, a port in use, a bundle
    folder that is none.
    """
    from edge_agent.doors import make_app
    from edge_agent.server import Server

    with _stopped_by_signal() as stop, Agent.open(config) as agent:
        agent.expect()
        with Server(make_app(agent.serving), config.host, config.port) as server:
            agent.state.beat(url=server.url)
            agent.begin(bundles, trial=trial, strict=strict)
            stop.calmly()
            agent.start()
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


class _Stop:
    """What a signal does: while the agent starts it ends the program at once, afterwards in order."""

    def __init__(self) -> None:
        self.code = 0
        self._is_calm = False
        self._event = threading.Event()

    def calmly(self) -> None:
        """From now on a signal is only noted."""
        self._is_calm = True

    def wait(self) -> bool:
        """Wait for a signal; False when it takes long (a wait without end would keep Python from its handlers)."""
        return self._event.wait(3600)

    def take(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.code = INTERRUPTED if number == signal.SIGINT else 0
        self._event.set()
        if not self._is_calm:
            raise KeyboardInterrupt if self.code else SystemExit(0)


@contextmanager
def _stopped_by_signal() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
