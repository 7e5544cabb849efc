"""`MlflowRegistry`: models, versions and artifacts of an MLflow server or Databricks, by MLflow's REST API 2.0.

https://mlflow.org/docs/latest/api_reference/rest-api.html, and Databricks' DBFS API 2.0 for what it keeps there.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from edgepack.errors import BadInput, RuntimeFailed
from packager.archives import MOST_FILES
from packager.registries.address import ARTIFACTS, DBFS_READ, Address, Place, place_of
from packager.registries.session import RegistrySession

_API = "/api/2.0/mlflow"
_DBFS_LIST = "/api/2.0/dbfs/list"
_PAGE, _MOST_PAGES = 100, 100
_MOST_DEPTH = 32
_DIGITS = re.compile(r"[0-9]{1,19}")  # what an int64 may have
_DBFS_PIECE = 1 << 20  # the most that DBFS gives at once


@dataclass(frozen=True)
class Version:
    """A version of a model. Times are UTC, ISO 8601; None for what the registry does not say."""

    name: str
    version: str
    description: str | None = None
    stage: str | None = None
    aliases: tuple[str, ...] = ()
    run_id: str | None = None
    created_at: str | None = None


@dataclass(frozen=True)
class Model:
    """A registered model with its versions, newest first."""

    name: str
    user: str | None
    description: str | None
    created_at: str | None
    updated_at: str | None
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """A file of a version: its path in the model, its bytes, and the full path that is a source by itself."""

    name: str
    size_bytes: int | None
    full_path: str


class MlflowRegistry:
    """One registry. All methods raise as `RegistrySession.ask`."""

    def __init__(self, session: RegistrySession) -> None:
        self.session = session

    def check(self) -> None:
        """Ask for one model, to see that there is a registry, and that it lets us in."""
        self._table(self._asked(f"{_API}/registered-models/search", {"max_results": 1}), "registered_models")

    def models(self, name: str | None = None) -> list[Model]:
        """All registered models by name, or one of them, each with its versions. Raises BadInput for an unknown one."""
        if name is not None:
            _check_name(name)
            said = self._asked(f"{_API}/registered-models/get", {"name": name}).get("registered_model")
            plain = self._model(said, ())
            return [replace(plain, versions=tuple(self._with_aliases(self.versions(name), said)))]
        versions: dict[str, list[Version]] = {}
        for each in self._paged("model-versions", "model_versions"):
            found = self._version(each)
            versions.setdefault(found.name, []).append(found)
        models = []
        for said in self._paged("registered-models", "registered_models"):
            plain = self._model(said, ())
            newest = sorted(versions.get(plain.name, []), key=_age, reverse=True)
            models.append(replace(plain, versions=tuple(self._with_aliases(newest, said))))
        return sorted(models, key=lambda model: model.name)

    def versions(self, name: str) -> list[Version]:
        """The versions of a model, newest first."""
        _check_name(name)
        found = [self._version(each) for each in self._paged("model-versions", "model_versions", f"name='{name}'")]
        return sorted(found, key=_age, reverse=True)

    def resolve(self, address: Address) -> tuple[str, Place]:
        """The version that an address of a model means now, and where its artifacts lie. Raises BadInput for none."""
        version = address.version
        if address.alias:
            query = {"name": address.name, "alias": address.alias}
            said = self._asked(f"{_API}/registered-models/alias", query)
            version = self._version(said.get("model_version")).version
        elif _whole(version) is None:
            version = self._of_stage(address.name, version)
        query = {"name": address.name, "version": version}
        uri = self._asked(f"{_API}/model-versions/get-download-uri", query).get("artifact_uri")
        if not isinstance(uri, str) or not uri:
            raise self._odd("the place of a version")
        return version, place_of(uri)

    def artifacts(self, place: Place) -> list[Artifact]:
        """All files in a folder, by path; one without a name and a size where `place` is a file."""
        found: list[Artifact] = []
        waiting, named = [("", 0)], 0
        while waiting:
            below, depth = waiting.pop()
            for name, is_folder, size in self._listed(place, below):
                named += 1
                inner = f"{below}/{name}".lstrip("/")
                if depth == _MOST_DEPTH:
                    raise BadInput(f"'{place}' in the registry is nested more than {_MOST_DEPTH} folders deep: refused")
                if is_folder:
                    waiting.append((inner, depth + 1))
                else:
                    found.append(Artifact(inner, size, self.full_path(_joined(place, inner))))
                if named > MOST_FILES:
                    raise BadInput(f"'{place}' in the registry has more than {MOST_FILES} files and folders")
        return sorted(found, key=lambda each: each.name) or [Artifact("", None, self.full_path(place))]

    def full_path(self, place: Place) -> str:
        """The URL of an artifact: a source by itself."""
        if place.store == "dbfs":
            return f"{self.session.url}{DBFS_READ}?path=/{quote(place.path)}"
        return f"{self.session.url}{ARTIFACTS}/{quote(place.path)}"

    @contextmanager
    def opened(self, place: Place) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, in pieces."""
        if place.store == "dbfs":
            yield self._dbfs_pieces(place)
        else:
            with self.session.download(f"{ARTIFACTS}/{quote(place.path)}") as pieces:
                yield pieces

    def _of_stage(self, name: str, stage: str) -> str:
        """The newest version, of a stage unless it is `latest`."""
        for each in self.versions(name):
            if stage == "latest" or (each.stage or "").lower() == stage.lower():
                return each.version
        raise BadInput(f"model '{name}' of registry '{self.session.url}' has no version '{stage}'", field="version")

    def _listed(self, place: Place, below: str) -> Iterator[tuple[str, bool, int | None]]:
        """What lies directly in a folder: name, whether it is a folder, bytes."""
        folder = _joined(place, below)
        if place.store == "dbfs":
            said = self._asked(_DBFS_LIST, {"path": f"/{folder.path}"})
        else:
            said = self._asked(ARTIFACTS, {"path": folder.path})
        for each in self._table(said, "files"):
            path, size = str(each.get("path") or ""), each.get("file_size")
            if place.store == "dbfs":
                if path.strip("/") == folder.path and not each.get("is_dir"):
                    continue  # asked about a file, it lists that
                path = path.strip("/").removeprefix(f"{folder.path}/")
            if not _is_plain(path):
                raise BadInput(f"the registry names an artifact {path[:100]!a} that leads out of its folder: refused")
            yield path, bool(each.get("is_dir")), _whole(size)

    def _dbfs_pieces(self, place: Place) -> Iterator[bytes]:
        at = 0
        while True:
            query: dict[str, str | int] = {"path": f"/{place.path}", "offset": at, "length": _DBFS_PIECE}
            said = self._asked(DBFS_READ, query)
            try:
                piece = base64.b64decode(str(said.get("data") or ""), validate=True)
            except (binascii.Error, ValueError) as error:
                raise self._odd("a piece of a file") from error
            if not piece:
                return
            yield piece
            at += len(piece)

    def _paged(self, what: str, key: str, filter_: str = "") -> Iterator[dict[str, Any]]:
        """All pages of a search."""
        query: dict[str, str | int] = {"max_results": _PAGE, **({"filter": filter_} if filter_ else {})}
        for _ in range(_MOST_PAGES):
            said = self._asked(f"{_API}/{what}/search", query)
            yield from self._table(said, key)
            token = said.get("next_page_token")
            if not token:
                return
            query["page_token"] = str(token)
        raise BadInput(f"registry '{self.session.url}' has more than {_PAGE * _MOST_PAGES} entries: name one model")

    def _asked(self, path: str, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """As `RegistrySession.ask`, and all text of it can be written somewhere: JSON may name half a letter."""
        said = self.session.ask(path, query)
        try:
            json.dumps(said, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError) as error:
            raise self._odd("text") from error
        return said

    def _table(self, said: dict[str, Any], key: str) -> list[dict[str, Any]]:
        rows = said.get(key) or []
        if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
            raise self._odd(key)
        return rows

    def _model(self, said: Any, versions: Any) -> Model:
        if not isinstance(said, dict) or not isinstance(said.get("name"), str):
            raise self._odd("a model")
        return Model(
            name=said["name"],
            user=_text(said.get("user_id")),
            description=_text(said.get("description")),
            created_at=_time(said.get("creation_timestamp")),
            updated_at=_time(said.get("last_updated_timestamp")),
            versions=tuple(versions),
        )

    def _version(self, said: Any) -> Version:
        if not isinstance(said, dict) or not isinstance(said.get("name"), str):
            raise self._odd("a version")
        version, aliases = said.get("version"), said.get("aliases") or []
        if not isinstance(version, str | int) or not isinstance(aliases, list) or not _is_plain(str(version)):
            raise self._odd("a version")
        stage = _text(said.get("current_stage"))
        return Version(
            name=said["name"],
            version=str(version),
            description=_text(said.get("description")),
            stage=None if stage == "None" else stage,
            aliases=tuple(str(each) for each in aliases),
            run_id=_text(said.get("run_id")),
            created_at=_time(said.get("creation_timestamp")),
        )

    def _with_aliases(self, versions: list[Version], said: Any) -> list[Version]:
        """The same with the aliases that stand with the model: a search for versions leaves them out."""
        found: dict[str, set[str]] = {}
        for each in self._table(said, "aliases"):
            found.setdefault(str(each.get("version")), set()).add(str(each.get("alias")))
        return [
            replace(each, aliases=tuple(sorted({*each.aliases, *found.get(each.version, ())}))) for each in versions
        ]

    def _odd(self, what: str) -> RuntimeFailed:
        return RuntimeFailed(
            f"registry '{self.session.url}' does not answer with {what} that reads: is it an MLflow server?"
        )


def _joined(place: Place, below: str) -> Place:
    return Place(place.store, f"{place.path}/{below}") if below else place


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and name.isprintable() and not set(name) & set("/\\")


def _check_name(name: str) -> None:
    if "'" in name or not name.isprintable():
        raise BadInput(f"model name {name[:80]!a} has a quote or no letter: expected a name like 'wine'", field="name")


def _age(version: Version) -> tuple[int, str]:
    return _whole(version.version) or 0, version.version


def _text(said: Any) -> str | None:
    return said if isinstance(said, str) and said else None


def _whole(said: Any) -> int | None:
    """A number of bytes; protobuf's JSON writes large ones as text. None for what is none."""
    number = int(said) if isinstance(said, str) and _DIGITS.fullmatch(said) else said
    return number if type(number) is int and 0 <= number < 1 << 63 else None


def _time(said: Any) -> str | None:
    """Milliseconds since the epoch as ISO 8601."""
    number = _whole(said)
    if number is None:
        return None
    try:
        return datetime.fromtimestamp(number / 1000, tz=timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return None
