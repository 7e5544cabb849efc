"""The layers of an image, each with the inputs that its bytes follow from: base, wheels, agent, bundle."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildx.agent_layer import agent_entries
from buildx.base import base_entries
from buildx.entries import Entry, PathSource, complete
from buildx.image import BUNDLE_FOLDER
from buildx.interpreter import Interpreter
from buildx.layer_cache import Kind, Layer, LayerCache
from buildx.lock import LockedBase, LockedWheel
from buildx.pyc import compiled
from buildx.splice import Encoder, LayerFile, Stored, write_layer
from buildx.wheel_files import Place, wheel_entries
from oci.image import Index
from oci.layout import write_layout

OWN_LAYER_FROM = 4 << 20  # bytes: a larger wheel is a layer of its own, which other images and later versions share


@dataclass(frozen=True)
class LayerMaker:
    """Makes layers by way of the cache. Without an interpreter no bytecode is made."""

    cache: LayerCache
    encoder: Encoder
    interpreter: Interpreter | None

    def base(self, arch: str, locked: LockedBase, obtain: Callable[[], Mapping[str, Path]]) -> Layer:
        """The own base; the packages are asked for only if it must be made."""
        title = f"debian {locked.release} {arch}"
        inputs = [title, self._how, *(each.sha256 for each in locked.packages)]
        return self._made("base", title, inputs, lambda: base_entries(locked.packages, obtain()))

    def find_base(self, arch: str, locked: LockedBase) -> Layer | None:
        """The own base, if it was made before."""
        return self.cache.find(
            "base", [f"debian {locked.release} {arch}", self._how, *(each.sha256 for each in locked.packages)]
        )

    def wheels(self, locked: Sequence[LockedWheel], paths: Sequence[Path], place: Place) -> list[Callable[[], Layer]]:
        """One layer for each large wheel, one for all others together; each is made when it is called."""
        pairs = sorted(zip(locked, paths, strict=True), key=lambda pair: pair[0].name)
        large = [pair for pair in pairs if pair[0].size > OWN_LAYER_FROM]
        small = [pair for pair in pairs if pair[0].size <= OWN_LAYER_FROM]
        jobs = [
            self._wheel_job("wheel", f"{wheel.name} {wheel.version}", [(wheel, path)], place) for wheel, path in large
        ]
        if small:
            jobs.append(self._wheel_job("wheels", f"{len(small)} packages", small, place))
        return jobs

    def agent(self, place: Place) -> Layer:
        """The agent."""
        entries = agent_entries(place.python)
        return self._made("agent", "edgepack-agent", [self._how, _digest(entries)], lambda: entries)

    def bundle(self, index: Index) -> Layer:
        """The bundle, as an OCI layout; nothing is compressed: weights do not get smaller."""

        def write(path: Path) -> LayerFile:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                write_layout(index, Path(folder))
                return write_layer(_tree(Path(folder), BUNDLE_FOLDER), path, Stored())

        return self.cache.get_or_make("bundle", "bundle", [index.digest], write)

    @property
    def _how(self) -> str:
        return (
            f"{self.encoder.name}, {f'bytecode of {self.interpreter.release}' if self.interpreter else 'no bytecode'}"
        )

    def _wheel_job(
        self, kind: Kind, title: str, pairs: Sequence[tuple[LockedWheel, Path]], place: Place
    ) -> Callable[[], Layer]:
        inputs = [self._how, place.python, place.site, *(wheel.sha256 for wheel, _ in pairs)]
        return lambda: self._made(
            kind, title, inputs, lambda: [entry for _, path in pairs for entry in wheel_entries(path, place)]
        )

    def _made(self, kind: Kind, title: str, inputs: Sequence[str], entries: Callable[[], Sequence[Entry]]) -> Layer:
        def write(path: Path) -> LayerFile:
            found = entries()
            complete(found)  # a path that is there twice fails before anything is compiled
            bytecode = compiled(found, self.interpreter) if self.interpreter else []
            return write_layer([*found, *bytecode], path, self.encoder)

        return self.cache.get_or_make(kind, title, inputs, write)


def _tree(folder: Path, prefix: str) -> list[Entry]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [Entry(f"{prefix}/{path.relative_to(folder).as_posix()}", "file", PathSource.of(path)) for path in files]


def _digest(entries: Iterable[Entry]) -> str:
    """The digest of entries by what they say and hold."""
    hasher = hashlib.sha256()
    for entry in entries:
        hasher.update(entry.header())
        for chunk in entry.source.chunks() if entry.source else ():
            hasher.update(chunk)
    return hasher.hexdigest()
