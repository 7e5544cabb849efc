"""`edgepack.lock`: base packages and wheels by version and sha256, so that the same project builds the same image
later.

A TOML file that a person can read and a diff shows well: one package a line, sorted. It holds no addresses: where a
file comes from is this machine's business, what it is follows from its digest. It lies in the project folder, beside
a bare model file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from buildx.report import Report
from durable.files import write_atomically
from edgepack.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

NAME = "edgepack.lock"
_HEAD = """\
# Written by edgepack; keep it with the project. `edgepack build --locked` refuses what is not here.
format = 1
"""


class LockedPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Debian package of a base."""

    name: str
    version: str
    sha256: str
    size: int


class LockedWheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wheel of a target."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int


class LockedBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The packages of one Debian architecture."""

    release: str
    packages: list[LockedPackage]


class LockedTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wheels of one target, and what was asked for when they were resolved.

    `excluded` names what the base brings, `glibc` is the base's version where that is one of the user's own.
    """

    python: str
    requirements: list[str]
    wheels: list[LockedWheel]
    excluded: list[str] = []
    glibc: str = ""


class LockedGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A base of the user's own: what it was called, and the digest of the image for this target."""

    name: str
    digest: str


class LockedStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wheels of one step's environment on one target.

    `asked` is what the user wrote, `requirements` what was resolved; `changes` says where a pin had to give way, and
    `glibc` is as in `LockedTarget`.
    """

    python: str
    asked: list[str]
    requirements: list[str]
    changes: list[str]
    wheels: list[LockedWheel]
    glibc: str = ""


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    base: dict[str, LockedBase] = {}
    target: dict[str, LockedTarget] = {}
    step: dict[str, dict[str, LockedStep]] = {}
    given: dict[str, LockedGiven] = {}
    format: int = 1

    def with_base(self, arch: str, base: LockedBase) -> Lock:
        """The same lock with another base for an architecture."""
        return msgspec.structs.replace(self, base={**self.base, arch: base})

    def with_target(self, name: str, target: LockedTarget) -> Lock:
        """The same lock with other wheels for a target."""
        return msgspec.structs.replace(self, target={**self.target, name: target})

    def with_given(self, name: str, given: LockedGiven) -> Lock:
        """The same lock with another base of the user's own for a target."""
        return msgspec.structs.replace(self, given={**self.given, name: given})

    def with_step(self, name: str, target: str, step: LockedStep) -> Lock:
        """The same lock with other wheels for a step on a target."""
        return msgspec.structs.replace(self, step={**self.step, name: {**self.step.get(name, {}), target: step}})

    def encode(self) -> str:
        """The text of the file."""
        parts = [_HEAD]
        for arch, base in sorted(self.base.items()):
            parts.append(f"\n[base.{arch}]\nrelease = {_quoted(base.release)}\npackages = [\n{_rows(base.packages)}]\n")
        for name, target in sorted(self.target.items()):
            asked = ", ".join(map(_quoted, target.requirements))
            head = f"\n[target.{_quoted(name)}]\npython = {_quoted(target.python)}\nrequirements = [{asked}]\n"
            if target.excluded:
                head += f"excluded = [{', '.join(map(_quoted, target.excluded))}]\n"
            if target.glibc:
                head += f"glibc = {_quoted(target.glibc)}\n"
            parts.append(f"{head}wheels = [\n{_rows(target.wheels)}]\n")
        for name, given in sorted(self.given.items()):
            parts.append(f"\n[given.{_quoted(name)}]\nname = {_quoted(given.name)}\ndigest = {_quoted(given.digest)}\n")
        for step, targets in sorted(self.step.items()):
            parts += [_step(step, name, locked) for name, locked in sorted(targets.items())]
        return "".join(parts)

    @classmethod
    def decode(cls, text: str, name: str) -> Lock:
        """Read the text of a file. Raises BadInput when this version cannot."""
        try:
            lock = msgspec.convert(read_toml(text), cls)
        except (ValueError, msgspec.ValidationError) as error:
            raise BadInput(
                f"lock file '{name}' does not read: {error}; mend it, or delete it to have it made anew"
            ) from error
        if lock.format != 1:
            raise BadInput(f"lock file '{name}' has format {lock.format}, this edgepack reads 1: update edgepack")
        return lock


class LockFile:
    """Where a project's lock is kept. One that cannot be written beside the project is kept in the cache, with a
    notice.
    """

    def __init__(self, project: Path, cache: Path, report: Report) -> None:
        self.path = project / NAME
        self._spare = cache / "locks" / f"{project.name}-{_short(str(project))}.lock"
        self._report = report

    def read(self) -> Lock:
        """The lock of the project, an empty one where there is none yet. Raises BadInput when it does not read."""
        for path in (self.path, self._spare):
            try:
                return Lock.decode(path.read_text("utf-8"), path.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise BadInput(f"lock file '{path}' does not read: {error}") from error
        return Lock()

    def write(self, lock: Lock) -> None:
        """Write it if it differs from what is there."""
        text = lock.encode()
        try:
            if not self.path.is_file() or self.path.read_text("utf-8") != text:
                write_atomically(self.path, text.encode())
        except OSError as error:
            self._spare.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._spare, text.encode())
            self._report.notice(
                f"'{self.path}' cannot be written ({error.strerror}): the lock is kept in '{self._spare}'"
            )


def _step(step: str, target: str, locked: LockedStep) -> str:
    lists = {"asked": locked.asked, "requirements": locked.requirements, "changes": locked.changes}
    lines = [f"{key} = [{', '.join(map(_quoted, texts))}]\n" for key, texts in lists.items()]
    lines += [f"glibc = {_quoted(locked.glibc)}\n"] if locked.glibc else []
    head = f"\n[step.{_quoted(step)}.{_quoted(target)}]\npython = {_quoted(locked.python)}\n"
    return f"{head}{''.join(lines)}wheels = [\n{_rows(locked.wheels)}]\n"


def _rows(items: Iterable[msgspec.Struct]) -> str:
    rows = []
    for item in items:
        fields = ", ".join(f"{key} = {_quoted(value)}" for key, value in msgspec.structs.asdict(item).items())
        rows.append(f"  {{ {fields} }},\n")
    return "".join(rows)


def _quoted(value: str | int) -> str:
    """A JSON string or number is a TOML one as well, but for escaped surrogates and a bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(text: str) -> object:
    """Read TOML on any Python we run on. Raises ValueError."""
    return tomllib.loads(text)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
