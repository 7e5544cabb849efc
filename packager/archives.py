"""Trees of files that users hand us, as a zip or as a folder, read with suspicion; nothing of them is executed.

A zip is judged by its directory before a byte is unpacked: paths that lead out, links, devices, names that another
file system would take for one, members that overlap, and more bytes than such a file can honestly hold. One top
folder (`zip -r step.zip step/`) is taken away, so that both ways of zipping give the same tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from durable.files import publish
from edgepack.errors import BadInput
from oci.blob import chunks

MOST_FILES = 10_000
MOST_BYTES = 16 << 30  # unpacked
FREE_RATIO = 256 << 20  # bytes that may come of any zip, however small it is
MOST_RATIO = 100  # above that: deflate reaches 1,000, weights and text stay below 20

_JUNK = ("__MACOSX", "__pycache__", ".DS_Store", ".ipynb_checkpoints", ".git")  # what zip programs and editors leave
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)  # what reading a zip raises
_LOCAL_HEADER = 30  # bytes of a member's own header, without name and extra field (APPNOTE 4.3.7)
_PIECE = 1 << 20


@dataclass(frozen=True)
class Tree:
    """The files of an upload by their path in it, without the one top folder. `digest` names the upload as a whole.

    `files` maps to plain files on this machine; they stay there as long as the folder that a zip was unpacked to.
    """

    name: str
    files: Mapping[str, Path]
    digest: str

    def read(self, path: str, limit: int) -> bytes:
        """The content of a file. Raises BadInput when it is larger than `limit` bytes."""
        with self.files[path].open("rb") as file:
            return _at_most(file, limit, path, self.name)

    def sources(self) -> list[str]:
        """The Python files, sorted."""
        return sorted(path for path in self.files if path.endswith(".py"))


def open_tree(path: Path, cache: Path, *, is_apart: Callable[[Path], bool] = lambda _: False) -> Tree:
    """Open an uploaded zip or folder. A zip is unpacked below `cache`, once for each content, whole or not at all.
    What of a folder `is_apart` does not belong to it, whatever it is.

    Raises BadInput that names the path at fault; nothing is left behind then.
    """
    if path.is_dir():
        return _tree(path.name, _files_of(path, is_apart))
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for chunk in chunks(file):
            digest.update(chunk)
    folder = _unpacked(path, cache / "unpacked" / digest.hexdigest())
    inside = (each for each in folder.rglob("*") if each.is_file())
    return _tree(path.name, {each.relative_to(folder).as_posix(): each for each in inside})


@contextmanager
def lying_still(sources: Iterable[Path]) -> Iterator[None]:
    """Turn the loss of a file of these, while they are read, into BadInput that names it."""
    try:
        yield
    except FileNotFoundError as error:
        lost = Path(str(error.filename))
        if not any(lost.is_relative_to(each) for each in sources):
            raise
        raise BadInput(
            f"'{lost.name}' was there a moment ago, and is gone: package what nobody changes just now"
        ) from error


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip with members does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def names_in(path: Path) -> list[str]:
    """The paths in a zip or folder, without its top folder; nothing is unpacked. Raises BadInput as `open_tree`."""
    if path.is_dir():
        return sorted(_files_of(path))
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(_checked(path, archive))
    except (*_DAMAGED, OSError) as error:
        raise _unreadable(path, error) from error


def read_one(path: Path, name: str, limit: int) -> bytes | None:
    """The content of one file of a zip or folder, None where it has none of that path; nothing is unpacked.

    Raises BadInput as `open_tree`, and when the file is larger than `limit` bytes.
    """
    if path.is_dir():
        return _read_file(path, name, limit)
    try:
        with zipfile.ZipFile(path) as archive:
            info = _checked(path, archive).get(name)
            if info is None:
                return None
            with archive.open(info) as packed:
                return _at_most(packed, limit, name, path.name)
    except (*_DAMAGED, OSError) as error:
        raise _unreadable(path, error) from error


def _read_file(folder: Path, name: str, limit: int) -> bytes | None:
    file = folder / name
    if not os.path.lexists(file):
        return None
    if file.is_symlink() or file.resolve() != folder.resolve() / name or not file.is_file():
        raise _no_plain_file(name, folder)
    with file.open("rb") as opened:
        return _at_most(opened, limit, name, folder.name)


def _at_most(file: IO[bytes], limit: int, name: str, where: str) -> bytes:
    found = file.read(limit + 1)
    if len(found) > limit:
        raise BadInput(f"'{name}' in '{where}' is larger than {limit} bytes")
    return found


def _no_plain_file(name: str, folder: Path) -> BadInput:
    return BadInput(f"'{name}' in folder '{folder.name}' is a link or no plain file: copy the file into it")


def _unreadable(path: Path, error: Exception) -> BadInput:
    if path.suffix != ".zip":  # .keras and .pt are zips that no user makes
        return BadInput(f"'{path.name}' is damaged or cut off: {error}; copy it again, or save the model anew")
    return BadInput(f"zip '{path.name}' does not read: {error}; copy it again, or make it anew with `zip -r`")


def _unpacked(path: Path, final: Path) -> Path:
    """The folder of a zip's files; made in a folder of its own and renamed, so that two runs may do it at once."""
    if final.is_dir():
        os.utime(final)  # pruning goes by that
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name[:12]}-"))
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked(path, archive)
            _check_space(path, members.values(), stage)
            for name, info in members.items():
                _write(archive, info, stage / name)
        stage.chmod(0o755)
        _move(stage, final)
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return final


def _move(stage: Path, final: Path) -> None:
    try:
        publish(stage, final)
    except OSError:
        if not final.is_dir():  # another run was faster: its folder has the same content
            raise


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as packed, path.open("xb") as out:
        shutil.copyfileobj(packed, out, _PIECE)
    path.chmod(0o444)


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip by their path in the tree. Raises BadInput for the first that is not to be unpacked."""
    members = archive.infolist()
    if len(members) > MOST_FILES:
        raise BadInput(f"zip '{path.name}' has {len(members)} members: expected at most {MOST_FILES}")
    for info in members:
        _check_member(path, info)
    _check_sizes(path, members)
    found = [info for info in members if not info.is_dir() and not is_junk(info.filename)]
    names = _without_top([info.filename for info in found])
    _check_distinct(path, names)
    return dict(sorted(zip(names, found, strict=True)))


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    _check_name(path, name.removesuffix("/"))
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise BadInput(f"'{name}' in zip '{path.name}' is a link: zip the file itself (without `zip -y`)")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadInput(f"'{name}' in zip '{path.name}' is no plain file: leave it out")
    if info.flag_bits & _ENCRYPTED:
        raise BadInput(f"'{name}' in zip '{path.name}' is encrypted: zip it without a password")
    if info.compress_type not in _METHODS:
        raise BadInput(f"'{name}' in zip '{path.name}' uses compression {info.compress_type}: use `zip -r`")


def _check_name(path: Path, name: str) -> None:
    """A plain path inside the tree, on every file system."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 200 for part in parts)
    if (
        not plain
        or not name.isprintable()
        or any(letter in name for letter in '\\:*?"<>|')
        or unicodedata.normalize("NFC", name) != name
        or len(name.encode()) > 800
    ):
        raise BadInput(
            f"zip '{path.name}' holds the path {name[:100]!a}: expected plain relative paths that stay inside it"
        )


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse bombs: what unpacks to far more than it is, and members that share bytes."""
    whole, packed = sum(info.file_size for info in members), path.stat().st_size
    if whole > MOST_BYTES or (whole > FREE_RATIO and whole > MOST_RATIO * packed):
        raise BadInput(f"zip '{path.name}' of {packed} bytes unpacks to {whole}: refused as a bomb")
    end = 0
    for info in sorted(members, key=lambda each: each.header_offset):
        if info.header_offset < end:
            raise BadInput(
                f"'{info.filename}' in zip '{path.name}' shares bytes with another member: refused as a bomb"
            )
        end = info.header_offset + _LOCAL_HEADER + len(info.orig_filename.encode()) + info.compress_size
    if end > packed:
        raise BadInput(f"zip '{path.name}' says that it is longer than its {packed} bytes: copy it again")


def _check_space(path: Path, members: Iterable[zipfile.ZipInfo], folder: Path) -> None:
    needed, free = sum(info.file_size for info in members), shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(f"zip '{path.name}' unpacks to {needed} bytes, '{folder.parent}' has {free} free: make room")


def _check_distinct(path: Path, names: list[str]) -> None:
    """No two files that are one where case does not count, and none that is a folder as well."""
    if not names:
        raise BadInput(f"'{path.name}' holds no files: expected the model's")
    folded: dict[str, str] = {}
    for name, times in Counter(names).items():
        other = folded.setdefault(name.casefold(), name)
        if other != name or times > 1:
            raise BadInput(f"'{other}' and '{name}' in '{path.name}' differ at most in case: rename one")
    for name in names:
        parent = next((str(up) for up in PurePosixPath(name).parents if str(up).casefold() in folded), None)
        if parent:
            raise BadInput(f"'{parent}' in '{path.name}' is a file and a folder at once: rename one")


def is_junk(name: str) -> bool:
    """Whether a path is what zip programs, editors and Python leave behind."""
    return any(part in _JUNK for part in name.split("/")) or name.endswith(".pyc")


def _without_top(names: list[str]) -> list[str]:
    """The same paths without the one folder that all lie in, where there is one."""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) == 1 and all("/" in name for name in names):
        return [name.partition("/")[2] for name in names]
    return names


def _files_of(path: Path, is_apart: Callable[[Path], bool] = lambda _: False) -> dict[str, Path]:
    """The files of a folder as they lie, by their path in it. Links are refused: they lead out of it."""
    found: dict[str, Path] = {}
    for each in sorted(path.rglob("*")):
        name = each.relative_to(path).as_posix()
        if is_junk(name) or is_apart(each):
            continue
        if each.is_symlink() or not (each.is_file() or each.is_dir()):
            raise _no_plain_file(name, path)
        _check_name(path, name)
        if each.is_file():
            found[name] = each
        if len(found) > MOST_FILES:
            raise BadInput(f"folder '{path.name}' has more than {MOST_FILES} files")
    _check_distinct(path, list(found))
    return found


def _tree(name: str, files: dict[str, Path]) -> Tree:
    """The digest follows from names and contents alone: neither a zip's dates nor its order count."""
    found, hasher = dict(sorted(files.items())), hashlib.sha256()
    for inside, path in found.items():
        with path.open("rb") as file:
            hasher.update(f"{inside}\0{path.stat().st_size}\0".encode())
            for chunk in chunks(file):
                hasher.update(chunk)
    return Tree(name, found, f"sha256:{hasher.hexdigest()}")
