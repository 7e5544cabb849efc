"""Layers by what they are made of: the same recipe and inputs are written once on a machine.

A key is the digest of the recipe's version and every input. An entry is believed only while its blob has the digest
that was noted when it was written; a damaged one is made anew. Two builds at once write under names of their own and
rename; pruning waits for nobody and is refused while a build runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from buildx.fetch import is_whole
from buildx.splice import LayerFile
from edgepack.errors import BadInput, BuildFailed
from oci.blob import FileBlob
from oci.descriptor import Descriptor
from oci.digest import Digest

RECIPE = "4"  # raised when the same inputs shall give other bytes
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
Kind = Literal["base", "wheel", "wheels", "agent", "bundle"]


@dataclass(frozen=True)
class Layer:
    """A layer of an image; `cached` says that this build did not have to make it."""

    blob: FileBlob
    diff_id: str
    kind: Kind
    title: str
    cached: bool


class _Note(msgspec.Struct, frozen=True):
    """What is noted of a layer, beside its blob."""

    digest: str
    size: int
    diff_id: str
    media_type: str
    kind: str
    title: str


class LayerCache:
    """A folder of layers. Use `opened` to get one."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "notes"
        self._blobs = folder / "blobs"
        self._parts = folder / "parts" / secrets.token_hex(8)
        for each in (self._notes, self._blobs, self._parts):
            each.mkdir(parents=True, exist_ok=True)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, cache: Path, *, keep: bool = True) -> Iterator[LayerCache]:
        """The cache for the time of one build; without `keep`, an empty one that is gone afterwards.

        Raises BadInput when the cache folder cannot be written.
        """
        try:
            _make(cache)
            with _locked(cache, fcntl.LOCK_SH), scratch_folder(cache) as scratch:
                opened = cls(cache / "layers" if keep else scratch)
                try:
                    yield opened
                finally:
                    remove_folder(opened._parts)
        except OSError as error:
            if error.errno not in (*_UNWRITABLE, *_FULL):
                raise
            raise _unwritable(cache, error) from error

    def find(self, kind: Kind, inputs: Sequence[str]) -> Layer | None:
        """A layer that was made before, if it is still what it was."""
        note_path = self._notes / f"{_key(kind, inputs)}.json"
        try:
            note = msgspec.json.decode(note_path.read_bytes(), type=_Note)
            blob = self._blobs / Digest.parse(note.digest).hex
        except (OSError, msgspec.MsgspecError):
            return None
        if not is_whole(blob, Digest.parse(note.digest).hex):
            return None
        with contextlib.suppress(OSError):
            os.utime(note_path)
            os.utime(blob)
        return _layer(note, blob, kind, cached=True)

    def checked(self, name: str, inputs: Sequence[str], check: Callable[[], None]) -> None:
        """Run a check that follows from the inputs alone, unless it has passed here before."""
        note = self._notes / f"{_key(name, inputs)}.passed"
        if not note.is_file():
            check()
            note.touch()
        os.utime(note)

    def get_or_make(self, kind: Kind, title: str, inputs: Sequence[str], write: Callable[[Path], LayerFile]) -> Layer:
        """Find a layer, or have it written to a path that is handed in."""
        found = self.find(kind, inputs)
        if found:
            return found
        part = self._parts / secrets.token_hex(8)
        try:
            made = write(part)
            note = _Note(made.digest, made.size, made.diff_id, made.media_type, kind, title)
            blob = self._blobs / Digest.parse(made.digest).hex
            part.replace(blob)
            part.write_bytes(msgspec.json.encode(note))
            part.replace(self._notes / f"{_key(kind, inputs)}.json")
        except OSError as error:
            if error.errno in (*_UNWRITABLE, *_FULL):
                raise
            raise BuildFailed(
                f"layer '{title}' could not be written to the cache: {error.strerror or error}"
            ) from error
        finally:
            part.unlink(missing_ok=True)
        return _layer(note, blob, kind, cached=False)


@dataclass(frozen=True)
class CachePart:
    """One kind of thing in the cache folder, for `edgepack cache`."""

    name: str
    files: int
    size_bytes: int


PARTS = ("layers", "wheels", "debian", "interpreters", "bases", "unpacked", "workers")


def list_cache(cache: Path) -> list[CachePart]:
    """What lies in the cache, a line a kind."""
    found = []
    for name in PARTS:
        sizes = [path.stat().st_size for path in (cache / name).rglob("*") if path.is_file() and not path.is_symlink()]
        found.append(CachePart(name, len(sizes), sum(sizes)))
    return found


def prune_cache(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove files that no build used for so long, and what cut-off builds left; returns the bytes that are free now.

    Raises BadInput while a build is using the cache.
    """
    if not cache.is_dir():
        return 0
    before = sum(part.size_bytes for part in list_cache(cache))
    with _locked(cache, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for left in [*cache.glob(".build-*"), *(cache / "interpreters").glob(".unpack-*"), cache / "layers" / "parts"]:
            shutil.rmtree(left, ignore_errors=True)
        kept = [*(cache / "interpreters").glob("*"), *(cache / "unpacked").glob("*"), *(cache / "workers").glob("*")]
        for folder in kept:
            if now_s - folder.stat().st_mtime >= unused_s:
                shutil.rmtree(folder, ignore_errors=True)
        for name in ("layers", "wheels", "debian", "bases"):
            _prune(cache / name, now_s - unused_s)
    return before - sum(part.size_bytes for part in list_cache(cache))


def _prune(folder: Path, oldest: float) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.stat().st_mtime <= oldest:
            path.unlink()
        elif path.is_dir():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


@contextlib.contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A folder in the cache for the time of one build."""
    folder = Path(tempfile.mkdtemp(dir=cache, prefix=".build-"))
    try:
        yield folder
    finally:
        remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder in which an interrupted build's threads may still be writing."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _make(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(cache, error) from error


def _unwritable(cache: Path, error: OSError) -> BadInput:
    if error.errno in _FULL:
        return BadInput(
            f"no room is left for the cache '{cache}' ({error.strerror}): edgepack cache prune --unused-days 7 makes "
            "some, or set EDGEPACK_CACHE to a folder on another disk"
        )
    return BadInput(f"the cache '{cache}' cannot be written: {error.strerror}; set EDGEPACK_CACHE to a folder that can")


@contextlib.contextmanager
def _locked(cache: Path, kind: int) -> Iterator[None]:
    try:
        lock = (cache / "lock").open("a")
    except OSError as error:
        raise _unwritable(cache, error) from error
    with lock as file:
        try:
            fcntl.flock(file, kind)
        except BlockingIOError as error:
            raise BadInput("a build is using the cache: prune it when that has ended") from error
        yield


def _key(kind: str, inputs: Sequence[str]) -> str:
    return hashlib.sha256(msgspec.json.encode([RECIPE, kind, *map(str, inputs)])).hexdigest()


def _layer(note: _Note, blob: Path, kind: Kind, *, cached: bool) -> Layer:
    return Layer(
        FileBlob(blob, Descriptor(note.media_type, note.digest, note.size)), note.diff_id, kind, note.title, cached
    )
