"""`Repository`: clients load and unload pipelines, where whoever runs the agent allows it (`EDGEPACK_MODEL_CONTROL`).

Rules:
- what is unloaded stays installed: the hub's assignment, the files and the log are as before
- an unloaded pipeline is back after `load`, when the agent starts again, or when a new version of it is activated
"""

from __future__ import annotations

import logging
import time

from edge_agent.activate import Activator
from edge_agent.pipelines.serving import Serving
from edge_agent.telemetry.events import event
from edgepack.errors import RuntimeFailed

log = logging.getLogger("edgepack.agent")

_WAKE_S = 60.0  # for what is being made for others already


class Repository:
    """What clients may do to the pipelines of one agent; see `edge_agent.pipelines.serving.Control`."""

    def __init__(self, serving: Serving, activator: Activator) -> None:
        self._serving, self._activator = serving, activator

    def load(self, name: str) -> None:
        """Have an installed pipeline answer; one that does is left as it is, one that rests is woken. Raises NotServed
        for an unknown one, RuntimeFailed for one that does not load any more, Unreachable for one that does not wake.
        """
        if name in self._serving.names:
            return
        if name in self._serving.resting and self._serving.wake is not None:
            with self._serving.lease(name, wake_by=time.monotonic() + _WAKE_S):
                return
        reason = self._activator.reload(name)
        if name not in self._serving.names:
            raise RuntimeFailed(reason or f"pipeline '{name}' did not load")
        event(log, "pipeline loaded by a client", pipeline=name)

    def unload(self, name: str) -> None:
        """Stop answering under a name and free the memory. Raises NotServed where no such pipeline answers."""
        self._serving.unload(name)
        event(log, "pipeline unloaded by a client", pipeline=name)
