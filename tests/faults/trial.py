"""`Trial`: an agent at work on a volume, the power cut again and again, and its promises held against what is left.

One cut after another on the same data folder: start the real agent, let clients ask on several connections while one
follows the log, cut at a random moment, kill, mount again, and look. What is held against it:

- every row that a client was answered is in the log, once, as it was sent and answered;
- a row that was read from the log has kept its sequence, and no other row ever gets it;
- the bundle that is active is whole, so is every bundle folder, and the state's database is sound.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bundle.pipeline import LogPolicy
from bundle.store import faults
from edge_agent.folders import Folders
from edge_agent.state import State
from oci.image import Index
from oci.layout import write_layout
from tests.edge_agent.real_hub import assigned, make_bundle
from tests.faults.clients import Book, Name, Place, load, name_of, place_of, read_log
from tests.faults.device import AGENT, Device
from tests.faults.volume import Volume

LOG = LogPolicy(max_bytes="128Mi")  # durability: commit, the default
_WHILE_IT_STARTS = 0.1  # share of the cuts
_LONGEST_S = 0.5  # from the first request to a cut


@dataclass
class Outcome:
    """What a trial found; the lists must stay empty."""

    KINDS: ClassVar = ("lost", "doubled", "torn", "moved", "refused", "damaged")
    cuts: int = 0
    answered: int = 0  # rows
    seconds: float = 0.0
    lost: list[Name] = field(default_factory=list)
    doubled: list[Name] = field(default_factory=list)
    torn: list[dict[str, Any]] = field(default_factory=list)  # rows that are not what was sent or answered
    moved: list[Place] = field(default_factory=list)  # sequences that named two rows
    refused: list[str] = field(default_factory=list)  # answers that were neither rows nor 503
    damaged: list[str] = field(default_factory=list)  # bundles and databases

    @property
    def faults(self) -> dict[str, int]:
        """The kinds of faults that were found, with their numbers."""
        return {kind: len(getattr(self, kind)) for kind in self.KINDS if getattr(self, kind)}


class Trial:
    """Cuts on one volume. `seed` decides the moments; `program` is the agent's."""

    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: Path, seed: int, *, program: str = AGENT) -> None:
        self.outcome = Outcome()
        self.factors: dict[str, float] = {}  # of the bundles that may answer, by manifest
        self.bundles: set[str] = set()  # manifests that did answer
        self._place, self._seed, self._random, self._program = place, seed, random.Random(seed), program
        self._answered: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._known: dict[Place, Name] = {}
        self._judged: int | None = None  # the sequence up to which the log has been looked at

    def run(self, cuts: int) -> Outcome:
        """Cut so many times, or until something is found."""
        begun = time.monotonic()
        with Volume(self._place) as volume:
            data = volume.root / "data"
            self._install(data)
            while self.outcome.cuts < cuts and not self.outcome.faults:
                self._cut_once(volume, data)
            if not self.outcome.faults:
                with self._start(data) as device:
                    if self._look(device) is not None:
                        self._settle()
            volume.unmount()
            volume.check()
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    def _install(self, data: Path) -> None:
        """Let the agent activate its first bundle as it should, also where the trial's own program forgets to sync."""
        write_layout(self._bundle(2.0), self._place / "layout")
        with Device.on(data, self._log, "--bundle", str(self._place / "layout")) as device:
            device.port()

    def _stir(self) -> None:
        """Give the agent something to do beside answering. Called ahead of the load before each cut."""

    def _await_moment(self) -> None:
        """Wait until the power goes."""
        time.sleep(self._random.uniform(0.02, _LONGEST_S))

    def _settle(self) -> None:
        """Look at what is elsewhere, at the end, while the agent runs."""

    def _bundle(self, factor: float) -> Index:
        index = make_bundle(self._place / "bundle", factor=factor, log=LOG)
        self.factors[assigned(index).manifest] = factor
        return index

    def _start(self, data: Path) -> Device:
        return Device.on(data, self._log, program=self._program, **self.environment)

    @property
    def _log(self) -> Path:
        return self._place / "agent.log"

    def _cut_once(self, volume: Volume, data: Path) -> None:
        book = Book()
        with self._start(data) as device:
            if self._random.random() < _WHILE_IT_STARTS:
                time.sleep(self._random.uniform(0.1, 0.6))
                volume.cut()
                device.kill()
            elif not self._cut_under_load(volume, device, book):
                return
        self.outcome.cuts += 1
        self.outcome.refused += book.refused
        self.outcome.answered += sum(book.answered.values())
        self._answered |= book.answered
        self._asked |= book.asked
        volume.remount(checked=self._random.random() < 0.5)
        self.outcome.damaged += damage_at_rest(data)
        self._learn(book.read)

    def _cut_under_load(self, volume: Volume, device: Device, book: Book) -> bool:
        port = self._look(device, self._judged)  # at what the last cut left, before anything new is written
        if port is None or self.outcome.faults:
            return False
        self._stir()
        with load(port, f"{self._seed}-{self.outcome.cuts}", book, after=self._judged):
            self._await_moment()
            book.close()
            volume.cut()
            device.kill()
        return True

    def _look(self, device: Device, after: int | None = None) -> int | None:
        """Judge the log of an agent that starts after a cut. Its port, or None when it does not serve as before."""
        try:
            port = device.port()
            rows = read_log(port, after)
        except OSError as error:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
            self.outcome.damaged.append(f"after cut {self.outcome.cuts} of seed {self._seed}: {error}\n{tail}")
            return None
        self._judge(rows)
        return port

    def _learn(self, read: dict[Place, Name]) -> None:
        self.outcome.moved += [place for place, name in read.items() if self._known.setdefault(place, name) != name]

    def _judge(self, rows: list[dict[str, Any]]) -> None:
        """Hold rows of the log, the last of it or all, against the books."""
        self._learn({place_of(row): name_of(row) for row in rows})
        self.outcome.torn += [row for row in rows if not self._is_right(row)]
        self.bundles |= {row["metadata"]["bundle"] for row in rows}
        self.outcome.moved += [place for place, count in Counter(map(place_of, rows)).items() if count > 1]
        held = Counter(self._known.values())
        self.outcome.doubled = [name for name, count in held.items() if count > 1]
        wanted = ((request, row) for request, count in self._answered.items() for row in range(count))
        self.outcome.lost = [name for name in wanted if name not in held]
        self._judged = max((place_of(row)[1] for row in rows), default=self._judged)

    def _is_right(self, row: dict[str, Any]) -> bool:
        """Whether a row of the log is one that a client sent, with the answer of the bundle that it names."""
        request_id, index = name_of(row)
        number, turn = request_id.split("-")[-2:]
        sent, factor = [float(number), float(turn), float(index)], self.factors[row["metadata"]["bundle"]]
        return (
            index < self._asked.get(request_id, 0)
            and row["in"]["x"] == sent
            and row["out"]["y"] == [factor * sum(sent)]
        )


def damage_at_rest(data: Path) -> list[str]:
    """What of an agent's data folder is not whole, between a cut and the next start. It is looked at in a copy."""
    folders = Folders(data)
    with tempfile.TemporaryDirectory(prefix="edgepack-rest-") as copy:
        for path in data.glob("state.sqlite*"):
            if not path.name.endswith("-shm"):  # made anew from the log by whoever opens it
                shutil.copy(path, copy)
        database = Path(copy) / folders.state.name
        with closing(sqlite3.connect(database)) as db:
            found = [said for (said,) in db.execute("PRAGMA integrity_check") if said != "ok"]
        with closing(State.open(database)) as state:
            versions = state.installed()
    for name, installed in versions.items():
        found += [f"active bundle of '{name}': {fault}" for fault in faults(folders.bundle(installed.active.manifest))]
    whole = [path for path in folders.bundles.iterdir() if not path.name.startswith(".")]
    return found + [f"bundle folder {path.name}: {fault}" for path in whole for fault in faults(path)]
