"""`FleetTrial`: cuts while a hub changes what a device runs and its log goes home. The hub's own power stays on.

Beside what every trial holds: each row that was answered reaches the hub, and no row stands there twice.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.edge_agent.real_hub import RealHub, enrolled_folder
from tests.faults.clients import name_of, place_of
from tests.faults.trial import Trial

_HOME_S = 180.0
_MOMENTS = ("assignment accepted", "bundle activated", "")  # what an agent logs; shortly after it the power goes
_EVENT_S = 60.0  # for an event to come; a cut without it is as good


class FleetTrial(Trial):
    """A trial on a device of `hub`, which assigns one of two bundles in turn, with a new sequence each time."""

    environment: ClassVar[Mapping[str, str]] = {"EDGEPACK_SEAL_S": "0.2", "EDGEPACK_BACKOFF_FIRST_S": "0.1"}

    def __init__(self, place: Path, seed: int, hub: RealHub) -> None:
        super().__init__(place, seed)
        self._hub = hub
        self.at_hub: list[dict[str, Any]] = []

    def _install(self, data: Path) -> None:
        self._turns = itertools.cycle([self._hub.publish(self._bundle(factor)) for factor in (2.0, 3.0)])
        self._device = enrolled_folder(self._hub, data)[1].device
        super()._install(data)

    def _stir(self) -> None:
        self._logged = self._log.stat().st_size
        self._hub.assign(self._device, demo=next(self._turns))

    def _await_moment(self) -> None:
        event, deadline = _MOMENTS[self.outcome.cuts % len(_MOMENTS)].encode(), time.monotonic() + _EVENT_S
        while event not in self._log.read_bytes()[self._logged :] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(self._random.uniform(0, 0.5))

    def _settle(self) -> None:
        wanted = {(request, row) for request, count in self._answered.items() for row in range(count)}
        deadline = time.monotonic() + _HOME_S
        while True:
            self.at_hub = self._hub.rows(self._device)
            missing = wanted - {name_of(row) for row in self.at_hub}
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        self.outcome.lost += sorted(missing)
        self.outcome.torn += [row for row in self.at_hub if not self._is_right(row)]
        names, places = Counter(map(name_of, self.at_hub)), Counter(map(place_of, self.at_hub))
        self.outcome.doubled += [name for name, count in names.items() if count > 1]
        self.outcome.moved += [place for place, count in places.items() if count > 1]
        self.outcome.moved += [each for each in map(place_of, self.at_hub) if each not in self._known]
