"""Which models of a followed predictor lie on the disk, where `disk_cache_size` bounds them.

First what is asked for just now, then what is new and the latest of its model, so that it is proven; what was there,
the most recently used first; then the latest of each model, and all others, the highest version first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bundle.golden import GoldenRows
from bundle.model_folders import Versions, versions_of
from columns.columns import Columns
from columns.json_value import QUERY
from edgepack.errors import BadInput
from packager.dialects.cortex_stores import fetched
from packager.registries.kept import FOLDER

Key = tuple[str, str]  # a model and its version

LATEST = "latest"  # a version, as requests name it
NOT_FETCHED = Path(os.devnull)  # stands for an object of a store whose name alone is known


@dataclass(eq=False)
class Disk:
    """What is there of a predictor's models, for whoever packages it again and again. Objects lie in `folder`."""

    folder: Path
    asked: Key | None = None
    there: tuple[Key, ...] = ()  # the most recently used first
    known: frozenset[Key] | None = None  # all that are served, on the disk or not; None before the first time

    def choose(self, models: Sequence[Versions], most: int) -> tuple[list[Versions], list[Versions]]:
        """The models with those versions that are to be served, and with those that are to be there, at most so many.

        While one is brought nothing new is served: it may be broken. Raises BadInput where that one is gone.
        """
        latest = [(each.name, each.latest) for each in models]
        every = {(each.name, number) for each in models for number in each.places}
        new = [key for key in latest if self.known is not None and key not in self.known]
        first = new
        if self.asked is not None:
            every, first = every & (self.known or every), [self.asked]
            if self.asked not in every:
                raise BadInput(f"model '{self.asked[0]}' has no version {self.asked[1]} any more")
        others = sorted(every, key=lambda key: (-int(key[1]), key[0]))
        ranked = dict.fromkeys([*first, *self.there, *latest, *others])
        self.there, self.known = tuple([key for key in ranked if key in every][:most]), frozenset(every)
        return _of(models, every), _of(models, self.there)

    def fetch(self, stores: Mapping[str, str], models: Sequence[Versions], kind: str) -> dict[str, Path]:
        """The files of these models that lie in stores (place → URL), fetched; no others are kept. Raises as `fetched`
        and `versions_of`.
        """
        found: dict[str, Path] = {}
        kept: set[str] = set()
        for model in models:
            for at in model.places.values():
                place = next((each for each in stores if f"{at}/".startswith(f"{each}/")), None)
                if place is None:
                    continue
                inside = f"{at}/".removeprefix(f"{place}/")
                files = fetched(stores[place], self.folder, inside)
                kept |= {path.relative_to(self.folder / FOLDER).parts[0] for path in files.values()}
                found |= {f"{place}/{path}": file for path, file in files.items()}
                versions_of(model.name, at, found, kind)
        for former in (self.folder / FOLDER).glob("*"):
            if former.name not in kept:
                shutil.rmtree(former)
        return found


def _of(models: Sequence[Versions], keys: Collection[Key]) -> list[Versions]:
    """The models with these versions; without those that have none."""
    left = (
        Versions(each.name, {number: at for number, at in each.places.items() if (each.name, number) in keys})
        for each in models
    )
    return [each for each in left if each.places]


def of_those_there(rows: GoldenRows, options: Mapping[str, Any]) -> GoldenRows:
    """Golden rows without those whose query asks a model that a bundle leaves out, by what its worker is told."""
    models = options.get("models") or {}
    if QUERY not in rows.inputs.schema or all("path" in said for each in models.values() for said in each.values()):
        return rows
    stay = [row for row in range(rows.inputs.rows) if _is_there(dict(parse_qsl(rows.inputs[QUERY][row])), models)]
    outputs = rows.outputs and _only(rows.outputs, stay)
    return GoldenRows(_only(rows.inputs, stay), outputs if stay else None)


def _is_there(asked: Mapping[str, str], models: Mapping[str, Mapping[str, Mapping[str, str]]]) -> bool:
    """Whether the model that a query names is there; one that names none asks what nobody knows."""
    versions = models.get(asked.get("model", ""), {})
    said = asked.get("version", LATEST)
    number = max(versions, key=int, default="") if said == LATEST else said
    return "path" in versions.get(number, {"path": ""})


def _only(columns: Columns, rows: Sequence[int]) -> Columns:
    arrays = {name: array[list(rows)] for name, array in columns.arrays.items()}
    return Columns(columns.schema, arrays, len(rows))


def left_out(files: Mapping[str, Path], every: Sequence[Versions], there: Sequence[Versions]) -> set[str]:
    """The paths of models that are not to be there."""
    stay = tuple(f"{place}/" for each in there for place in each.places.values())
    every_place = tuple(f"{place}/" for each in every for place in each.places.values())
    return {path for path in files if path.startswith(every_place) and not path.startswith(stay)}
