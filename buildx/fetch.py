"""Fetching a file by its sha256: from the cache, or over the network into the cache. What does not match is never
kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from buildx.side_by_side import side_by_side
from edgepack.errors import BadInput, NotTrusted, Unreachable
from oci.blob import chunks
from oci.digest import Digest

TIMEOUT_S = 30.0
ATTEMPTS = 4
PARALLEL = 8
_GONE = (404, 410)
_PIECE = 64 << 10  # bytes: how much may still come after an interruption


class Gone(Unreachable):
    """The other side answered, and does not have the file (any more)."""


@dataclass(frozen=True)
class Wanted:
    """A file to have: where it lies, what it must be, and the name under which it is kept."""

    url: str
    sha256: str
    name: str


class StoppedError(Exception):
    """A download that ends because another failed; whoever began both tells of that one."""


class Downloads:
    """Downloads that are under way. Stopped, their files are gone, no other begins, and none becomes whole."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._parts: set[Path] = set()
        self._stopped = False

    def begin(self, folder: Path) -> tuple[int, Path]:
        """A new file, open for writing. Raises StoppedError when all was stopped."""
        with self._changing:
            self.check()
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
            self._parts.add(Path(name))
            return handle, Path(name)

    def finish(self, part: Path, final: Path) -> None:
        """Give a whole file its name."""
        with self._changing:
            self.check()
            part.chmod(0o644)
            part.replace(final)

    def forget(self, part: Path) -> None:
        """Remove what is left of a download."""
        with self._changing:
            part.unlink(missing_ok=True)
            self._parts.discard(part)

    def stop(self) -> None:
        """End all, without waiting: a thread may be in a read of half a minute."""
        with self._changing:
            self._stopped = True
            for part in self._parts:
                part.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise StoppedError when all was stopped."""
        if self._stopped:
            raise StoppedError("another download failed, or the build was interrupted")


def read_url(url: str, *, sleep: Callable[[float], None] = time.sleep) -> bytes:
    """Read a small document. Raises Gone for 404, Unreachable after four attempts."""
    with tempfile.TemporaryFile() as file:
        _attempt(url, file.fileno(), sleep, Downloads())
        file.seek(0)
        return file.read()


def fetch(
    wanted: Wanted, folder: Path, *, sleep: Callable[[float], None] = time.sleep, downloads: Downloads | None = None
) -> Path:
    """Return the file `folder`/<sha256>/<name>, fetched unless it is there whole. Two processes may do this at once.

    Raises Gone, Unreachable, NotTrusted when what came has another digest, or BadInput when it cannot be kept.
    """
    final = folder / wanted.sha256 / wanted.name
    if in_cache(final, wanted.sha256):
        return final
    downloads = downloads or Downloads()
    try:
        handle, part = downloads.begin(final.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                _attempt(wanted.url, out.fileno(), sleep, downloads)
            if not is_whole(part, wanted.sha256):
                raise NotTrusted(
                    f"'{wanted.name}' from {_host(wanted.url)} does not have the digest sha256:{wanted.sha256}: refused"
                )
            downloads.finish(part, final)
        finally:
            downloads.forget(part)
    except (_UnwritableError, OSError) as error:
        raise BadInput(
            f"'{wanted.name}' cannot be kept in the cache '{folder}': {getattr(error, 'strerror', None) or error}; "
            "make room there, or set EDGEPACK_CACHE to a folder that has it"
        ) from error
    return final


def fetch_all(wanted: Iterable[Wanted], folder: Path) -> list[Path]:
    """Fetch several files, eight at a time; the first failure ends it, and an interruption at once."""
    downloads = Downloads()

    def job(each: Wanted) -> Path:
        try:
            return fetch(each, folder, downloads=downloads)
        except BaseException:
            downloads.stop()
            raise

    try:
        return side_by_side([partial(job, each) for each in wanted], PARALLEL)
    except BaseException:
        downloads.stop()
        raise


def is_whole(path: Path, sha256: str) -> bool:
    """Say whether a file is there and has the digest."""
    try:
        with path.open("rb") as file:
            return Digest.of(chunks(file)).hex == sha256
    except OSError:
        return False


def in_cache(path: Path, sha256: str) -> bool:
    """Say whether a file is there whole, and mark it as used: pruning goes by that."""
    whole = is_whole(path, sha256)
    if whole:
        with contextlib.suppress(OSError):
            os.utime(path)
    return whole


def sha256_of(path: Path) -> str:
    """The digest of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else Digest.of(chunks(file)).hex
        )


def _attempt(url: str, handle: int, sleep: Callable[[float], None], downloads: Downloads) -> None:
    """Copy a URL into a file, beginning anew after a failure that may pass."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            os.lseek(handle, 0, os.SEEK_SET)
            os.ftruncate(handle, 0)
            _copy(url, handle, downloads)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _GONE:
                raise Gone(f"{_host(url)} does not have '{_name(url)}'") from error
            if error.code < 500 and error.code != 429:
                raise Unreachable(
                    f"{_host(url)} answered {error.code} for '{_name(url)}': check its address and credentials"
                ) from error
            failure: Exception = error
        except FileNotFoundError as error:
            raise Gone(f"'{urlsplit(url).path}' is not there") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), FileNotFoundError):
                raise Gone(f"'{urlsplit(url).path}' is not there") from error
            failure = error
        downloads.check()
        if attempt < ATTEMPTS:
            sleep(2.0 ** (attempt - 1))
    raise Unreachable(
        f"{_host(url)} did not give '{_name(url)}' in {ATTEMPTS} attempts: {_reason(failure)}"
    ) from failure


def _copy(url: str, handle: int, downloads: Downloads) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "edgepack"})  # noqa: S310 - a mirror may be file: too
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        expected, seen = answer.headers.get("Content-Length"), 0
        while data := answer.read(_PIECE):
            downloads.check()
            seen += len(data)
            _write(handle, data)
        if expected is not None and seen != int(expected):
            raise http.client.IncompleteRead(b"", int(expected) - seen)


class _UnwritableError(Exception):
    """The disk took no more: nothing that another attempt would mend."""


def _write(handle: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(handle, data) :]
    except OSError as error:
        raise _UnwritableError(error.strerror or str(error)) from error


def _host(url: str) -> str:
    return urlsplit(url).hostname or "this machine"


def _name(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1]


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error or type(error).__name__)
