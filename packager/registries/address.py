"""Where a model lies in a registry, as it is written: by name and version, or by the full path of an artifact.

models:/NAME/VERSION   models:/NAME/STAGE   models:/NAME/latest   models:/NAME@ALIAS
mlflow-artifacts:/PATH                      what the server itself keeps
dbfs:/databricks/mlflow-registry/ID/models/NAME[/FILE]
https://HOST/api/2.0/mlflow-artifacts/artifacts/PATH
https://HOST/api/2.0/dbfs/read?path=/databricks/...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from edgepack.errors import BadInput

ARTIFACTS, DBFS_READ = "/api/2.0/mlflow-artifacts/artifacts", "/api/2.0/dbfs/read"
_EXPECTED = "expected models:/name/version, mlflow-artifacts:/path, dbfs:/path, or an artifact's full path"


@dataclass(frozen=True)
class Place:
    """A folder or file in a store: of the server itself, or Databricks' file system."""

    store: Literal["mlflow-artifacts", "dbfs"]
    path: str

    @property
    def name(self) -> str:
        """What the thing there is called: of a folder `artifacts`, which every model has, that of the model."""
        above, _, last = self.path.rpartition("/")
        return above.rpartition("/")[2] if last == "artifacts" and above else last

    def __str__(self) -> str:
        return f"{self.store}:/{self.path}"


@dataclass(frozen=True)
class Address:
    """A model: `name` with a version, alias or stage, or a `place`. `registry` is the URL, where the address has it."""

    name: str = ""
    version: str = ""
    alias: str = ""
    place: Place | None = None
    registry: str | None = None


def parse_address(text: str) -> Address:
    """Read an address. Raises BadInput for one that has a form of its own."""
    if not text.isprintable() or len(text) > 2000:
        raise BadInput(f"source {text[:80]!a} has letters that no address has: {_EXPECTED}")
    scheme, _, rest = text.partition(":")
    scheme = scheme.lower()
    if scheme == "models":
        return _model(rest, text)
    if scheme in ("mlflow-artifacts", "dbfs"):
        return Address(place=place_of(text))
    if scheme in ("http", "https"):
        return _url(text)
    raise BadInput(f"source '{text[:200]}' is in no form that is known: {_EXPECTED}")


def place_of(uri: str) -> Place:
    """Read what a registry says, or a user writes, of where artifacts lie. Raises BadInput for another store."""
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower()
    if scheme not in ("mlflow-artifacts", "dbfs") or rest.startswith("//"):
        raise BadInput(
            f"the registry keeps it at '{uri[:200]}', which is not read through the registry itself: start the server "
            "with --serve-artifacts, or fetch the folder and give that"
        )
    return Place("dbfs" if scheme == "dbfs" else "mlflow-artifacts", _inside(rest, uri))


def _model(rest: str, text: str) -> Address:
    parts = rest.removeprefix("/").split("/")
    name, at, alias = parts[0].partition("@")
    if rest.startswith("//") or not name or (at and (len(parts) != 1 or not alias)):
        raise BadInput(f"'{text[:200]}' names no model: expected models:/name/version or models:/name@alias")
    if at:
        return Address(name, alias=alias)
    if len(parts) != 2 or not parts[1]:
        raise BadInput(f"'{text[:200]}' names no version: expected models:/name/version or models:/name@alias")
    return Address(name, version=parts[1])


def _url(text: str) -> Address:
    try:
        parts = urlsplit(text)
    except ValueError as error:  # half of an IPv6 address
        raise BadInput(f"'{text[:200]}' is no URL ({error}): {_EXPECTED}") from error
    for mark in (ARTIFACTS, DBFS_READ):
        base, found, path = parts.path.partition(mark)
        if not found:
            continue
        registry = f"{parts.scheme}://{parts.netloc}{base}"
        if mark == DBFS_READ:
            said = parse_qs(parts.query).get("path", [""])[0]
            return Address(place=Place("dbfs", _inside(said, text)), registry=registry)
        return Address(place=Place("mlflow-artifacts", _inside(unquote(path), text)), registry=registry)
    raise BadInput(f"'{text[:200]}' is no artifact's full path: {_EXPECTED}")


def _inside(path: str, text: str) -> str:
    """A path in a store, without slashes at its ends. Raises BadInput for one that climbs."""
    parts = path.strip("/").split("/")
    if not all(parts) or any(part in (".", "..") or "\\" in part or not part.isprintable() for part in parts):
        raise BadInput(f"'{text[:200]}' names no path in a store: {_EXPECTED}")
    return "/".join(parts)
