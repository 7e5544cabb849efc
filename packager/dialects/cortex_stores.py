"""Models in object stores, `s3://bucket/prefix` and `gs://bucket/prefix`: listed, and fetched once into the cache.

Credentials come from the environment alone (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, … as
the library `obstore` reads them), never from a project. What lies in the cache is named by the listing it came from, so
that a changed object is fetched anew; it is listed and pruned with what came from registries.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from durable.files import publish
from edgepack.errors import BadInput, Unreachable
from oci.reference import is_loopback
from packager.archives import MOST_BYTES, MOST_FILES, is_junk
from packager.registries.kept import FOLDER

SCHEMES = ("s3", "gs")
_PIECE = 16 << 20  # bytes that are read at a time
_REFUSED = re.compile(r"status code: 40[0134]|NoSuchBucket|AccessDenied")
_ATTEMPTS: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}


@dataclass(frozen=True)
class Listed:
    """One object below a prefix: its path there, its size, and what changes when its content does."""

    path: str
    key: str
    size: int
    mark: str


def is_remote(path: str) -> bool:
    """Whether a path names a prefix of an object store that we read."""
    return urlsplit(path).scheme in SCHEMES


def mark_of(url: str) -> str:
    """What changes when any object below a prefix does. Raises BadInput, Unreachable."""
    return _digest(url, _listed(_store(url), url))


def listed(url: str) -> list[str]:
    """The paths of the objects below a prefix. Raises BadInput, Unreachable."""
    return [each.path for each in _listed(_store(url), url)]


def fetched(url: str, cache: Path, inside: str = "") -> Mapping[str, Path]:
    """The objects below a prefix as files, by their path there; those alone whose path begins so. Raises BadInput,
    Unreachable.
    """
    store = _store(url)
    found = [each for each in _listed(store, url) if each.path.startswith(inside)]
    final = cache / FOLDER / _digest(url, found)
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=final.parent) as work:
            stage = Path(work, "model")
            for each in found:
                _fetch(store, url, each, stage / each.path)
            with suppress(FileExistsError, OSError):  # another run was faster: what it has is the same
                publish(stage, final)
    if not final.is_dir():
        raise BadInput(f"'{url}' cannot be kept in '{final.parent}': is it writable?")
    os.utime(final)  # pruning goes by that
    return {each.path: final / each.path for each in found}


def _store(url: str) -> Any:
    """The bucket of a URL, as the environment describes its store."""
    try:
        from obstore.store import GCSStore, S3Store
    except ImportError as error:
        raise BadInput(f"'{url[:200]}' needs the package obstore: pip install 'edgepack[stores]'") from error
    parts = urlsplit(url)
    if not parts.netloc or parts.query or parts.fragment:
        raise BadInput(f"'{url[:200]}' is no prefix of a bucket: expected {parts.scheme}://bucket/prefix")
    if parts.scheme == "gs":
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")  # as Google's own clients read it
        told = {"base_url": emulator, "skip_signature": True, **_plain_http(emulator)} if emulator else {}
        return GCSStore(parts.netloc, retry_config=_ATTEMPTS, **told)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    told = {"endpoint": endpoint, **_plain_http(endpoint)} if endpoint else {}
    return S3Store(parts.netloc, retry_config=_ATTEMPTS, **told)


def _plain_http(endpoint: str) -> dict[str, Any]:
    """Plain HTTP is for stores on this machine alone. Raises BadInput for one elsewhere, and for no address."""
    host = endpoint.rpartition("@")[2][:200]  # before it may stand a password
    try:
        parts = urlsplit(endpoint)
    except ValueError as error:
        raise BadInput(f"'{host}' is no address of a store: expected https://host[:port]") from error
    if parts.scheme != "http":
        return {}
    if not is_loopback(parts.netloc.rpartition("@")[2]):
        raise BadInput(f"the store '{host}' is named with http://, which is for this machine alone: expected https://")
    return {"client_options": {"allow_http": True}}


def _listed(store: Any, url: str) -> list[Listed]:
    prefix = urlsplit(url).path.strip("/")
    start = f"{prefix}/" if prefix else ""
    found, size = [], 0
    for page in _asked(url, lambda: store.list(prefix or None)):
        for each in page:
            path = each["path"].removeprefix(start)
            if not each["path"].startswith(start) or path.endswith("/") or is_junk(path):
                continue
            mark = f"{each.get('e_tag')} {each.get('version')} {each['last_modified'].isoformat()}"
            found.append(Listed(_checked(url, path), each["path"], each["size"], mark))
            size += each["size"]
            if len(found) > MOST_FILES or size > MOST_BYTES:
                raise BadInput(
                    f"'{url}' has more than {MOST_FILES} objects, or {MOST_BYTES >> 30} GiB: name a prefix that holds "
                    "models alone"
                )
    if not found:
        raise BadInput(f"'{url}' has no objects: expected a model or version folders")
    return sorted(found, key=lambda each: each.path)


def _checked(url: str, path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or not path.isprintable():
        raise BadInput(f"'{url}' has an object {path[:100]!a}: expected plain names that stay inside it")
    return path


def _fetch(store: Any, url: str, each: Listed, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with path.open("xb") as out:
        for piece in _asked(url, lambda: store.get(each.key).stream(min_chunk_size=_PIECE)):
            size += out.write(piece)
    if size != each.size:
        raise Unreachable(f"'{url}': '{each.path}' has {size} bytes, the store said {each.size}: it changes just now")
    path.chmod(0o444)


def _asked(url: str, ask: Any) -> Any:
    """Ask the store. What it refuses is the user's to mend; what it does not answer may be tried again."""
    from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

    try:
        yield from ask()
    except (NotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
        raise BadInput(
            f"'{url}' is refused by its store: {_line(error)}; credentials come from the environment"
        ) from error
    except (BaseError, OSError) as error:
        if _REFUSED.search(str(error)):
            raise BadInput(
                f"'{url}' is refused by its store: {_line(error)}; credentials come from the environment"
            ) from error
        raise Unreachable(f"'{url}' does not answer: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).partition("Debug source:")[0].split())[:300]


def _digest(url: str, found: list[Listed]) -> str:
    lines = [url, *(f"{each.path}\0{each.size}\0{each.mark}" for each in found)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:40]
