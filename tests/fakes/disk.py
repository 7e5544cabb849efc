"""A disk in memory that forgets what was not synced, and refuses when told to.

It keeps, for each file and folder, what is durable and the list of changes since its last sync. A power cut leaves
the durable state plus any subset of those changes, the last write perhaps torn: `crash_states` makes such disks.
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from durable.disk import Disk

Change = tuple[str, int, bytes]  # write, truncate or preallocate; offset or size; data
SECTOR = 512


@dataclass(eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        _apply(self.content, change)
        self.pending.append(change)

    def sync(self, chosen: list[Change] | None = None) -> None:
        """Only what is pending reaches the platter: what an earlier sync failed to bring there stays lost."""
        durable = bytearray(self.durable)
        for change in self.pending if chosen is None else chosen:
            _apply(durable, change)
        self.durable, self.pending = bytes(durable), []


@dataclass(eq=False)
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[str, str, object]] = field(default_factory=list)  # link | move | unlink

    def change(self, change: tuple[str, str, object]) -> None:
        _apply_entry(self.entries, change)
        self.pending.append(change)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.entries), []


def _apply(content: bytearray, change: Change) -> None:
    kind, number, data = change
    if kind == "write":
        content.extend(bytes(max(0, number + len(data) - len(content))))
        content[number : number + len(data)] = data
    elif kind == "preallocate":
        content.extend(bytes(max(0, number - len(content))))
    elif number < len(content):
        del content[number:]
    else:
        content.extend(bytes(number - len(content)))


def _apply_entry(entries: dict[str, _File | _Folder], change: tuple[str, str, object]) -> None:
    kind, name, what = change
    if kind == "link":
        entries[name] = what  # type: ignore[assignment]
    elif kind == "move":
        if name in entries:  # where its making was lost, there is nothing to move
            entries[str(what)] = entries.pop(name)
    else:
        entries.pop(name, None)


class MemoryDisk(Disk):
    """Obeys the suite of the real disk. `before` is called ahead of each change, and may raise OSError."""

    def __init__(self, root: _Folder | None = None) -> None:
        self._root = root or _Folder()
        self._handles: dict[int, _File] = {}
        self._next = 1000
        self.before: Callable[[str, str], None] = lambda action, name: None
        self.after: Callable[[str], None] = lambda action: None
        self.locked: set[Path] = set()

    # Finding

    def _folder(self, path: Path) -> _Folder:
        node: _File | _Folder = self._root
        for part in path.parts[1:]:
            node = self._entry(node, part, path)
        if not isinstance(node, _Folder):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
        return node

    def _file(self, path: Path) -> _File:
        node = self._entry(self._folder(path.parent), path.name, path)
        if not isinstance(node, _File):
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        return node

    @staticmethod
    def _entry(node: _File | _Folder, name: str, path: Path) -> _File | _Folder:
        if not isinstance(node, _Folder) or name not in node.entries:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return node.entries[name]

    # The seam

    def make_folder(self, path: Path) -> None:
        self.before("make_folder", path.name)
        parent = self._folder(path.parent)
        if path.name in parent.entries:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        parent.change(("link", path.name, _Folder()))
        self.after("make_folder")

    def is_folder(self, path: Path) -> bool:
        try:
            self._folder(path)
        except OSError:
            return False
        return True

    def names(self, folder: Path) -> list[str]:
        return sorted(self._folder(folder).entries)

    def size(self, path: Path) -> int:
        return len(self._file(path).content)

    def read(self, path: Path, size: int | None = None) -> bytes:
        self.before("read", path.name)
        return bytes(self._file(path).content[:size])

    def create(self, path: Path, mode: int = 0o644) -> int:
        self.before("create", path.name)
        folder = self._folder(path.parent)
        if path.name in folder.entries:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        folder.change(("link", path.name, _File()))
        self.after("create")
        return self.open(path)

    def open(self, path: Path, *, writable: bool = True) -> int:
        file = self._file(path)
        self._next += 1
        self._handles[self._next] = file
        return self._next

    def preallocate(self, handle: int, size: int) -> None:
        self.before("preallocate", "")
        self._handles[handle].change(("preallocate", size, b""))
        self.after("preallocate")

    def write(self, handle: int, offset: int, data: bytes) -> None:
        file = self._handles[handle]
        try:
            self.before("write", "")
        except OSError:
            file.change(("write", offset, bytes(data[: len(data) * 2 // 3])))  # a refused write may have got somewhere
            raise
        file.change(("write", offset, bytes(data)))
        self.after("write")

    def truncate(self, handle: int, size: int) -> None:
        self.before("truncate", "")
        self._handles[handle].change(("truncate", size, b""))
        self.after("truncate")

    def sync(self, handle: int) -> None:
        file = self._handles[handle]
        try:
            self.before("sync", "")
        except OSError:
            # As Linux does: the pages count as clean from now on, what is on the platter is anybody's guess.
            rng = random.Random(len(file.content))
            file.sync([change for change in file.pending if rng.random() < 0.5])
            raise
        file.sync()
        self.after("sync")

    def close(self, handle: int) -> None:
        del self._handles[handle]

    def rename(self, old: Path, new: Path) -> None:
        self.before("rename", new.name)
        if old.parent != new.parent:
            raise NotImplementedError("renames across folders are not modelled")
        folder = self._folder(old.parent)
        self._entry(folder, old.name, old)
        folder.change(("move", old.name, new.name))
        self.after("rename")

    def unlink(self, path: Path) -> None:
        self.before("unlink", path.name)
        self._file(path)
        self._folder(path.parent).change(("unlink", path.name, None))
        self.after("unlink")

    def sync_folder(self, folder: Path) -> None:
        self.before("sync_folder", folder.name)
        self._folder(folder).sync()
        self.after("sync_folder")

    def sync_file_system(self, folder: Path) -> None:
        for name in self.names(folder):
            path = folder / name
            if self.is_folder(path):
                self.sync_file_system(path)
            else:
                handle = self.open(path, writable=False)
                self.sync(handle)
                self.close(handle)
        self.sync_folder(folder)

    @contextlib.contextmanager
    def lock(self, folder: Path) -> Iterator[object]:
        assert folder not in self.locked
        self.locked.add(folder)
        try:
            yield self
        finally:
            self.locked.discard(folder)

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    # The power cut

    def crash_states(self, rng: random.Random, count: int) -> Iterator[MemoryDisk]:
        """Disks as a cut at this moment may leave them: nothing, all, and random parts of what was not synced."""
        yield MemoryDisk(_crashed(self._root, lambda pending: [], rng))
        yield MemoryDisk(_crashed(self._root, lambda pending: list(pending), rng))
        for _ in range(count - 2):
            yield MemoryDisk(_crashed(self._root, rng.choice(_CHOICES)(rng), rng))

    @property
    def has_pending(self) -> bool:
        """Whether a cut now could lose anything."""
        return _pending(self._root)


def _pending(folder: _Folder) -> bool:
    nodes = folder.entries.values()
    return bool(folder.pending) or any(
        _pending(node) if isinstance(node, _Folder) else bool(node.pending) for node in nodes
    )


Choose = Callable[[list], list]


def _some(rng: random.Random) -> Choose:
    return lambda pending: [change for change in pending if rng.random() < 0.5]


def _prefix(rng: random.Random) -> Choose:
    return lambda pending: pending[: rng.randint(0, len(pending))]


def _all_but_one(rng: random.Random) -> Choose:
    def choose(pending: list) -> list:
        gone = rng.randrange(len(pending)) if pending else 0
        return [change for index, change in enumerate(pending) if index != gone]

    return choose


_CHOICES: list[Callable[[random.Random], Choose]] = [_some, _prefix, _all_but_one]


def _crashed(folder: _Folder, choose: Choose, rng: random.Random) -> _Folder:
    entries = dict(folder.durable)
    for change in choose(folder.pending):
        _apply_entry(entries, change)
    made = _Folder()
    for name, node in entries.items():
        if isinstance(node, _Folder):
            made.entries[name] = _crashed(node, choose, rng)
        else:
            content = _torn(node, choose(node.pending), rng)
            made.entries[name] = _File(content, bytes(content))
    made.durable = dict(made.entries)
    return made


def _torn(file: _File, chosen: list[Change], rng: random.Random) -> bytearray:
    content = bytearray(file.durable)
    for change in chosen:
        kind, offset, data = change
        if kind == "write" and len(chosen) < len(file.pending) and rng.random() < 0.5:
            _tear(content, offset, data, rng)
        else:
            _apply(content, change)
    return content


def _tear(content: bytearray, offset: int, data: bytes, rng: random.Random) -> None:
    """Only some sectors of a write arrive; the file's length may have, with zeros where they are missing."""
    _apply(content, ("preallocate", offset + len(data), b""))
    start = 0
    while start < len(data):
        stop = min(len(data), (offset + start) // SECTOR * SECTOR + SECTOR - offset)
        if rng.random() < 0.5:
            content[offset + start : offset + stop] = data[start:stop]
        start = stop


class Refusal:
    """Refuses the n-th call (counted from 1) of some actions with an errno; 0 refuses none and only counts."""

    def __init__(self, actions: set[str], nth: int, code: int, *, lasting: bool = False) -> None:
        self._actions, self._nth, self._code, self._lasting = actions, nth, code, lasting
        self.calls = 0
        self.refused = 0

    def __call__(self, action: str, name: str) -> None:
        if action not in self._actions:
            return
        self.calls += 1
        if self.calls == self._nth or (self._lasting and self._nth and self.calls > self._nth):
            self.refused += 1
            raise OSError(self._code, "refused by the test")


class ForgetfulDisk(MemoryDisk):
    """The planted bug: some kind of sync is not done, though it says so."""

    def __init__(self, *, forgets: str) -> None:
        super().__init__()
        self._forgets = forgets

    def sync(self, handle: int) -> None:
        if self._forgets != "sync":
            super().sync(handle)

    def sync_folder(self, folder: Path) -> None:
        if self._forgets != "sync_folder":
            super().sync_folder(folder)
