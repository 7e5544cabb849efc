"""The layers of an image, each with the inputs that its bytes follow from: base, wheels, agent, bundle."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arch.target import Target
from buildx.agent_layer import agent_entries
from buildx.base import base_entries
from buildx.entries import Entry, PathSource, complete
from buildx.image import BUNDLE_FOLDER, Foundation
from buildx.interpreter import Interpreter
from buildx.layer_cache import Kind, Layer, LayerCache
from buildx.lock import LockedBase, LockedWheel
from buildx.pyc import compiled
from buildx.side_by_side import side_by_side
from buildx.splice import Encoder, LayerFile, Stored, write_layer
from buildx.wheel_files import Place, check_apart, wheel_entries
from bundle import media
from edgepack.errors import BadInput
from oci.image import Index
from oci.layout import Layout, write_layout

OWN_LAYER_FROM = 4 << 20  # bytes: a larger wheel is a layer of its own, which other images and later versions share
OWN_LAYERS = 32  # at most: the largest wheels; all others share one
LAYERS = 127  # more than these an engine does not stack (moby's limit of overlay mounts)
_OTHERS = 3  # the wheels that share a layer, the agent, the bundle


@dataclass(frozen=True)
class WheelGroup:
    """Wheels that share a layer."""

    kind: Literal["wheel", "wheels"]
    title: str
    locked: tuple[LockedWheel, ...]
    paths: tuple[Path, ...]


def wheel_groups(
    locked: Sequence[LockedWheel], paths: Sequence[Path], base_layers: int = 1, most: int = OWN_LAYERS
) -> list[WheelGroup]:
    """One group for each large wheel, one for all others together, within the layers that an image may have.

    Raises BadInput when a base of so many layers leaves no room.
    """
    budget = min(most, LAYERS - _OTHERS - base_layers)
    if budget < 0:
        raise BadInput(
            f"the base has {base_layers} layers, an image has at most {LAYERS}, of which {_OTHERS} are edgepack's own: "
            "flatten the base"
        )
    pairs = sorted(zip(locked, paths, strict=True), key=lambda pair: pair[0].name)
    by_size = sorted((pair[0] for pair in pairs), key=lambda wheel: (-wheel.size, wheel.name))
    own = {wheel.name for wheel in by_size[:budget] if wheel.size > OWN_LAYER_FROM}
    groups = [
        WheelGroup("wheel", f"{wheel.name} {wheel.version}", (wheel,), (path,))
        for wheel, path in pairs
        if wheel.name in own
    ]
    small = [pair for pair in pairs if pair[0].name not in own]
    if small:
        wheels, files = zip(*small, strict=True)
        groups.append(WheelGroup("wheels", f"{len(small)} packages", wheels, files))
    return groups


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

    def wheels(
        self, locked: Sequence[LockedWheel], paths: Sequence[Path], foundation: Foundation
    ) -> list[Callable[[], Layer]]:
        """The layers of `wheel_groups`; each is made when it is called.

        Raises BuildFailed when two wheels bring one path, in whichever layers they are.
        """
        groups = wheel_groups(locked, paths, len(foundation.layers))
        digests = sorted(wheel.sha256 for wheel in locked)
        self.cache.checked("apart", digests, lambda: check_apart(paths, foundation.place))
        return [self._wheel_job(group, foundation.place) for group in groups]

    def agent(self, place: Place) -> Layer:
        """The agent."""
        entries = agent_entries(place.python)
        return self._made("agent", "edgepack-agent", [self._how, _digest(entries)], lambda: entries)

    def bundle(self, index: Index, target: Target | None = None) -> Layer:
        """The bundle, as an OCI layout; nothing is compressed: weights do not get smaller.

        All manifests are in it. With a target, of others' blobs only those that it has too: the wheels of a python step
        for another architecture are of no use in its image.
        """
        foreign = _foreign(index, target) if target else []

        def write(path: Path) -> LayerFile:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                write_layout(index, Path(folder))
                for digest in foreign:
                    Layout(Path(folder)).path(digest).unlink()
                return write_layer(_tree(Path(folder), BUNDLE_FOLDER), path, Stored())

        return self.cache.get_or_make("bundle", "bundle", [index.digest, *foreign], write)

    @property
    def _how(self) -> str:
        return (
            f"{self.encoder.name}, {f'bytecode of {self.interpreter.release}' if self.interpreter else 'no bytecode'}"
        )

    def _wheel_inputs(self, group: WheelGroup, place: Place) -> list[str]:
        return [self._how, place.python, place.site, *(wheel.sha256 for wheel in group.locked)]

    def _wheel_job(self, group: WheelGroup, place: Place) -> Callable[[], Layer]:
        return lambda: self._made(
            group.kind,
            group.title,
            self._wheel_inputs(group, place),
            lambda: [entry for path in group.paths for entry in wheel_entries(path, place)],
        )

    def _made(self, kind: Kind, title: str, inputs: Sequence[str], entries: Callable[[], Sequence[Entry]]) -> Layer:
        def write(path: Path) -> LayerFile:
            found = entries()
            complete(found)  # a path that is there twice fails before anything is compiled
            bytecode = compiled(found, self.interpreter) if self.interpreter else []
            return write_layer([*found, *bytecode], path, self.encoder)

        return self.cache.get_or_make(kind, title, inputs, write)


def make_all(jobs: Sequence[Callable[[], Layer]]) -> list[Layer]:
    """Make layers side by side, in the order given."""
    return side_by_side(jobs, min(4, len(os.sched_getaffinity(0))))


def _foreign(index: Index, target: Target) -> list[str]:
    """The blobs that other targets have and this one has not, sorted."""
    own: set[str] = set()
    others: set[str] = set()
    for image in index.images:
        held = own if image.annotations.get(media.TARGET) == str(target) else others
        held.update(str(blob.descriptor.digest) for blob in image.blobs())
    return sorted(others - own)


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
