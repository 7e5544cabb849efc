"""A hub from its start to its end: folder, socket, signals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hub.app import create_app
from hub.config import HubConfig
from hub.hub import Hub
from hub.server import Server

Announce = Callable[[str, Path, str | None], None]


def run_hub(config: HubConfig, announce: Announce) -> None:
    """Serve until SIGTERM, or until SIGINT, which ends in KeyboardInterrupt after everything is closed.

    `announce` gets URL, token file and, at the first start, the admin token. The socket comes first: a start that
    fails for its port or its certificate makes nothing.
    """
    server = Server(config)
    stop = _Stop(server)
    with contextlib.ExitStack() as closing:
        try:
            hub = closing.enter_context(contextlib.closing(Hub.open(config)))
            announce(server.url, hub.token_file, hub.admin_token if hub.is_new else None)
            server.serve(create_app(hub))
        finally:
            stop.finish()  # before the hub closes under requests that still run
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt


class _Stop:
    """Stops a server at the first signal, from a thread: the main one stands in the serving loop."""

    def __init__(self, server: Server) -> None:
        self.signal: int | None = None
        self._server = server
        self._thread = threading.Thread(target=server.stop, name="hub-stop")
        self._before = {each: signal.signal(each, self._note) for each in (signal.SIGTERM, signal.SIGINT)}

    def finish(self) -> None:
        """Return when the server has stopped; stop it now if no signal did."""
        if self.signal is None:
            self._server.stop()
        else:
            self._thread.join()
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signum
            self._thread.start()
