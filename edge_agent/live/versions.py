"""`Versions`: which versions of models are followed, where each of them is, and which make room for others.

Rules:
- the highest number that was taken stands for a model's name, the others answer where they are asked for
- at most so many versions are in memory and so many on the disk: the least recently used leave first, and come back
  when they are asked for
- whoever reads or changes this holds `turn`; nothing is made of files meanwhile, which may take minutes
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.activate import Activator
from edge_agent.pipelines.serving import Key, Serving
from edge_agent.telemetry.events import event
from fleet.messages import Assigned

log = logging.getLogger("edgepack.agent")


@dataclass(frozen=True)
class Budget:
    """At most so many versions in memory and on the disk; None: all."""

    in_memory: int | None = None
    on_disk: int | None = None


class Versions:
    """Versions by model's name and number, which is empty where a model has none."""

    def __init__(self, serving: Serving, activator: Activator, budget: Budget) -> None:
        self._serving, self._activator, self._budget = serving, activator, budget
        self.turn = threading.RLock()
        self.marks: dict[Key, str] = {}  # of what is served, or would be if it were asked for
        self.main: dict[str, str] = {}  # the number that stands for a name
        self.staged: OrderedDict[Key, Assigned] = OrderedDict()  # on the disk, the one longest unused first
        self.unproven: set[Key] = set()  # nobody has asked for them yet, so nothing was made of their files

    def numbers(self, name: str) -> list[str]:
        """All of a model."""
        return [number for each, number in self.marks if each == name]

    def in_memory(self) -> list[Key]:
        """Those that answer at once, the one longest unused first."""
        found = ((name, number or self.main.get(name, "")) for name, number in self._serving.in_memory)
        return [key for key in found if key in self.marks]

    def rests(self, key: Key) -> bool:
        """Whether a version answers only after it was brought back."""
        return key in self.marks and key not in self.in_memory()

    def stands_for_its_name(self, key: Key) -> bool:
        """Whether it is the highest, or would be."""
        main = self.main.get(key[0])
        return main is None or order(key[1]) >= order(main)

    def may_wait(self, key: Key) -> bool:
        """Whether a new version is made only when it is asked for: it is not the highest, and there is no room."""
        most = self._budget.in_memory
        has_room = most is None or len(self.in_memory()) < most
        is_new = key not in self.marks or key in self.unproven
        return is_new and not has_room and not self.stands_for_its_name(key)

    def wait(self, key: Key, mark: str) -> None:
        """Have a version made when it is asked for."""
        self.marks[key] = mark
        self.unproven.add(key)
        self._serving.keep(key[0], self.numbers(key[0]))
        self._serving.rest(*key)

    def answers(self, key: Key, mark: str) -> None:
        """Note that a version of this mark answers."""
        self.marks[key] = mark
        self.unproven.discard(key)
        self._serving.keep(key[0], self.numbers(key[0]))

    def drop(self, key: Key) -> None:
        """Follow a version no longer; what is left of its model answers."""
        name, number = key
        del self.marks[key]
        self.unproven.discard(key)
        self.staged.pop(key, None)
        if self.main.get(name) == number:
            del self.main[name]
        if others := self.numbers(name):
            self._serving.keep(name, others)

    def make_room(self, asked: Key | None) -> None:
        """Let go of what was not asked for longest; `asked` stays."""
        most = self._budget.in_memory
        for key in self.in_memory():
            if most is not None and len(self.in_memory()) > most and key != asked:
                name, number = key
                self._serving.rest(name, "" if self.main.get(name) == number else number)
                event(log, "model rests", pipeline=name, number=number or None)
        loaded = set(self.in_memory())
        for key in [key for key in self.staged if key not in loaded and key != asked]:
            if self._budget.on_disk is not None and len(self.staged) > self._budget.on_disk:
                self._activator.discard(self.staged.pop(key).manifest)

    def in_use(self) -> Sequence[str]:
        """Manifests that are still of use, beside those that the state knows. For any thread."""
        staged = [each.manifest for each in list(self.staged.values())]
        serving = self._serving
        return [*staged, *(each.base for each in serving.pipelines), *serving.unloaded.values(), *serving.leaving]


def order(number: str) -> int:
    """By which versions are compared."""
    return int(number or 0)
