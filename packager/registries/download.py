"""A model of a registry on this machine: streamed into the cache, whole or not at all, once for each listing."""

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
from packager.registries.mlflow_registry import Artifact, MlflowRegistry

FOLDER = "registry"
_DOWNLOADING_S = 86_400.0  # what is younger may still be written


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
    listing = json.dumps([registry.session.url, str(place), name, *told])
    with writing(cache):
        return _fetched(registry, place, artifacts, cache / FOLDER / _key(listing), name)


def list_downloads(cache: Path) -> tuple[int, int]:
    """How many models are kept, and their bytes."""
    folders = [each for each in (cache / FOLDER).glob("[0-9a-f]*") if each.is_dir()]
    return len(folders), sum(map(_size, folders))


def prune_downloads(cache: Path, unused_s: float, now_s: float) -> int:
    """Remove models that nobody asked for in so long, and what cut-off downloads left; returns the bytes freed."""
    before = list_downloads(cache)[1]
    for folder in (cache / FOLDER).glob("*"):
        least_s = max(unused_s, _DOWNLOADING_S) if folder.name.startswith(".") else unused_s
        with suppress(OSError):
            if now_s - folder.stat().st_mtime >= least_s:
                shutil.rmtree(folder, ignore_errors=True)
    return before - list_downloads(cache)[1]


def _fetched(registry: MlflowRegistry, place: Place, artifacts: list[Artifact], final: Path, name: str) -> Path:
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=final.parent) as work:
            stage = Path(work, "whole")
            _check_space(artifacts, Path(work))
            for artifact in artifacts:
                _write(registry, place, artifact, stage / name / artifact.name if artifact.name else stage / name)
            with suppress(FileExistsError, OSError):  # another run was first: it has the same
                publish(stage, final)
    if not (final / name).exists():
        raise BadInput(f"'{place}' cannot be kept in '{final.parent}': is it writable?")
    os.utime(final)  # pruning goes by that
    return final / name


def _write(registry: MlflowRegistry, place: Place, artifact: Artifact, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    where = Place(place.store, f"{place.path}/{artifact.name}") if artifact.name else place
    size = 0
    with registry.opened(where) as pieces, path.open("xb") as file:
        for piece in _bounded(pieces, MOST_BYTES if artifact.size_bytes is None else artifact.size_bytes, where):
            size += file.write(piece)
    if artifact.size_bytes is not None and size != artifact.size_bytes:
        raise Unreachable(f"the registry gave {size} of the {artifact.size_bytes} bytes of '{where}': try again")
    if not size and artifact.size_bytes is None:
        raise BadInput(f"the registry has nothing at '{where}'")


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


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
