"""A model of a registry on this machine: streamed into the cache, whole or not at all.

A version stays what it is, so it is fetched once for each listing. What lies at a path may be replaced by other bytes
of the same size, which no listing shows: it is fetched whenever it is named, and kept by its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from durable.files import publish
from edgepack.errors import BadInput, Unreachable
from packager.archives import MOST_BYTES
from packager.cache import writing
from packager.registries.address import Address, Place
from packager.registries.kept import FOLDER
from packager.registries.mlflow_registry import Artifact, MlflowRegistry


def fetch_source(
    registry: MlflowRegistry, address: Address, cache: Path, notice: Callable[[str], None] = lambda _: None
) -> Path:
    """The folder or file that an address means, below `cache`, called as the model is.

    Raises BadInput for what is not there, is too large or leads out; else as `RegistrySession.ask`.
    """
    place, name = address.place, _file_name(address.place.name if address.place else address.name)
    if place is None:
        version, place = registry.resolve(address)
        if version != address.version:
            notice(f"'{address.name}' {address.alias or address.version} of the registry is version {version}")
    artifacts = registry.artifacts(place)
    _check_size(place, artifacts)
    told = [(each.name, each.size_bytes) for each in artifacts]
    stays = address.place is None and all(each.size_bytes is not None for each in artifacts)
    key = _key(json.dumps([registry.session.url, str(place), name, *told])) if stays else None
    with writing(cache):
        return _fetched(registry, place, artifacts, cache / FOLDER, key, name)


def _fetched(
    registry: MlflowRegistry, place: Place, artifacts: list[Artifact], folder: Path, key: str | None, name: str
) -> Path:
    """What is kept under `key`, or under its content where that is None."""
    if key is None or not (folder / key).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as work:
            stage = Path(work, "whole")
            _check_space(artifacts, Path(work))
            content = _write_all(registry, place, artifacts, stage / name)
            key = key or _key(content)
            with suppress(FileExistsError, OSError):  # another run was first: it has the same
                publish(stage, folder / key)
    final = folder / key / name
    if not final.exists():
        raise BadInput(f"'{place}' cannot be kept in '{folder}': is it writable?")
    os.utime(final.parent)  # pruning goes by that
    return final


def _write_all(registry: MlflowRegistry, place: Place, artifacts: list[Artifact], path: Path) -> str:
    """Fetch all artifacts; returns what they are, by name and digest."""
    found, left = [path.name], MOST_BYTES
    for artifact in artifacts:
        size, digest = _write(registry, place, artifact, path / artifact.name if artifact.name else path, left)
        left -= size
        found += [artifact.name, digest]
    return json.dumps(found)


def _write(registry: MlflowRegistry, place: Place, artifact: Artifact, path: Path, most: int) -> tuple[int, str]:
    """Fetch one artifact of at most so many bytes; returns its size and digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    where = Place(place.store, f"{place.path}/{artifact.name}") if artifact.name else place
    most = most if artifact.size_bytes is None else min(artifact.size_bytes, most)
    size, hasher = 0, hashlib.sha256()
    with registry.opened(where) as pieces, path.open("xb") as file:
        for piece in _bounded(pieces, most, where):
            size += file.write(piece)
            hasher.update(piece)
    if artifact.size_bytes is not None and size != artifact.size_bytes:
        raise Unreachable(f"the registry gave {size} of the {artifact.size_bytes} bytes of '{where}': try again")
    if not size and not artifact.name:
        raise BadInput(f"the registry has nothing at '{where}'")
    return size, hasher.hexdigest()


def _bounded(pieces: Iterator[bytes], most: int, where: Place) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise BadInput(f"the registry gives more of '{where}' than the {most} bytes that it may have: refused")
        yield piece


def _check_size(place: Place, artifacts: list[Artifact]) -> None:
    whole = sum(each.size_bytes or 0 for each in artifacts)
    if whole > MOST_BYTES:
        raise BadInput(f"'{place}' in the registry has {whole} bytes: expected at most {MOST_BYTES}")
    folded = [each.name.casefold() for each in artifacts]
    if len(set(folded)) != len(folded):
        raise BadInput(f"'{place}' in the registry has two artifacts whose names differ in case alone: rename one")


def _check_space(artifacts: list[Artifact], folder: Path) -> None:
    needed, free = sum(each.size_bytes or 0 for each in artifacts), shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(f"the model has {needed} bytes, '{folder.parent}' has {free} free: make room")


def _key(listing: str) -> str:
    return hashlib.sha256(listing.encode()).hexdigest()[:32]


def _file_name(name: str) -> str:
    """A name that any file system takes, and no hidden one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "model"
