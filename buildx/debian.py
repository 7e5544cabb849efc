"""Debian's formats: the Packages index, what a set of packages depends on, and reading a .deb without dpkg.

deb(5): an `ar` archive with `control.tar.*` and `data.tar.*`. Nothing of a package is ever executed: no maintainer
script runs.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from buildx.zstd import open_zstd
from edgepack.errors import BadInput, BuildFailed


@dataclass(frozen=True)
class Package:
    """One stanza of an index. `archive` is where its file name begins; empty for the mirror itself."""

    name: str
    version: str
    sha256: str
    size: int
    filename: str
    depends: tuple[tuple[str, ...], ...]
    archive: str = ""

    @classmethod
    def parse(cls, stanza: str, archive: str = "") -> Package:
        """Read a stanza. Version conditions are left out: a release is consistent in itself."""
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
        clauses = [fields[key] for key in ("Pre-Depends", "Depends") if key in fields]
        depends = [_alternatives(clause) for text in clauses for clause in text.split(",")]
        try:
            return cls(
                fields["Package"],
                fields["Version"],
                fields["SHA256"],
                int(fields["Size"]),
                fields["Filename"],
                tuple(depends),
                archive,
            )
        except (KeyError, ValueError) as error:
            raise BuildFailed(
                f"package '{fields.get('Package')}' has no usable {error} in the mirror's index"
            ) from error


class PackagesIndex:
    """The packages of one release and architecture, of one archive or of several."""

    def __init__(self, text: str, archive: str = "") -> None:
        found = (stanza for stanza in text.split("\n\n") if stanza.startswith("Package: "))
        self._stanzas = {stanza[9 : stanza.index("\n")]: (stanza, archive) for stanza in found}
        self._older: dict[str, tuple[str, str]] = {}

    def updated(self, by: PackagesIndex) -> PackagesIndex:
        """The newest of both. What is older of two stays to be found by its digest: a lock may name it."""
        both = PackagesIndex("")
        both._stanzas = {**by._stanzas, **self._stanzas}
        for name in by._stanzas.keys() & self._stanzas.keys():
            if version_key(by[name].version) > version_key(self[name].version):
                both._stanzas[name], both._older[name] = by._stanzas[name], self._stanzas[name]
            else:
                both._older[name] = by._stanzas[name]
        return both

    def __contains__(self, name: str) -> bool:
        return name in self._stanzas

    def __getitem__(self, name: str) -> Package:
        """One package. Raises BadInput when the mirror has none of that name."""
        if name not in self._stanzas:
            raise BadInput(f"the Debian mirror has no package '{name}': use another mirror, or --base")
        return Package.parse(*self._stanzas[name])

    def find(self, name: str, sha256: str | None = None) -> Package | None:
        """One package, the newest or the one of that digest, or None."""
        found = [Package.parse(*held[name]) for held in (self._stanzas, self._older) if name in held]
        return next((package for package in found if sha256 in (None, package.sha256)), None)

    def closure(self, wanted: Iterable[str], without: Iterable[str]) -> list[Package]:
        """The wanted packages and all they depend on, sorted by name, except what is left out with all that only it
        needs.
        """
        found: dict[str, Package] = {}
        left_out, queue = frozenset(without), list(wanted)
        while queue:
            name = queue.pop()
            if name in found or name in left_out:
                continue
            found[name] = self[name]
            queue += [chosen for clause in found[name].depends if (chosen := self._choose(clause, left_out, found))]
        return [found[name] for name in sorted(found)]

    def _choose(self, clause: tuple[str, ...], left_out: frozenset[str], found: dict[str, Package]) -> str | None:
        """One of the alternatives: none where one is left out or already there."""
        if any(name in left_out or name in found for name in clause):
            return None
        return next((self._real(name) for name in clause if self._real(name)), None)

    def _real(self, name: str) -> str | None:
        return name if name in self else self._providers.get(name)

    @cached_property
    def _providers(self) -> dict[str, str]:
        """Virtual package → the first real one, by name, that provides it."""
        providers: dict[str, str] = {}
        for name in sorted(self._stanzas):
            match = re.search(r"^Provides: (.*)$", self._stanzas[name][0], re.MULTILINE)
            for virtual in match[1].split(",") if match else []:
                providers.setdefault(virtual.split()[0], name)
        return providers


@dataclass(frozen=True)
class Deb:
    """An opened package: its control stanza, and its files as a tar archive in memory."""

    control: str
    data: tarfile.TarFile


def read_deb(path: Path) -> Deb:
    """Open a .deb. Raises BuildFailed when it is not one."""
    try:
        parts = _ar_members(path.read_bytes())
        control = _tar(parts, "control.tar")
        stanza = control.extractfile("./control")
        data = _tar(parts, "data.tar")
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError, KeyError, ValueError) as error:
        raise BuildFailed(f"package '{path.name}' does not read: {error}") from error
    return Deb(stanza.read().decode() if stanza else "", data)


def upstream(version: str) -> str:
    """The upstream part of a Debian version: `3.11.2` of `3.11.2-6+deb12u8` (deb-version(7))."""
    bare = version.partition(":")[2] or version
    return re.split(r"[+.]dfsg", bare.rpartition("-")[0] or bare)[0]


def version_key(version: str) -> tuple[object, ...]:
    """What versions are ordered by (deb-version(7)): epoch, upstream part, Debian's own part."""
    epoch, colon, rest = version.partition(":")
    main, _, revision = (rest if colon else version).rpartition("-")
    upstream_part, debian_part = (main, revision) if main else (revision, "")
    return int(epoch) if colon and epoch.isdigit() else 0, _order(upstream_part), _order(debian_part)


def _order(text: str) -> list[tuple[tuple[int, ...], int]]:
    """Turns of other signs and numbers. `~` comes before the end, the end before letters, letters before the rest."""
    turns = re.findall(r"(\D*)(\d*)", text)
    return [((*(_weight(sign) for sign in signs), 0), int(number or 0)) for signs, number in turns]


def _weight(sign: str) -> int:
    if sign == "~":
        return -1
    return ord(sign) if sign.isascii() and sign.isalpha() else ord(sign) + 256


def _alternatives(clause: str) -> tuple[str, ...]:
    """`a (>= 1) | b:any` → ("a", "b")."""
    return tuple(re.split(r"[ (:\[]", each.strip(), maxsplit=1)[0] for each in clause.split("|"))


def _ar_members(data: bytes) -> dict[str, bytes]:
    """The members of an `ar` archive; ar(5)."""
    if data[:8] != b"!<arch>\n":
        raise ValueError("it does not begin like an ar archive")
    members, offset = {}, 8
    while offset + 60 <= len(data):
        name, size = data[offset : offset + 16].decode().strip().rstrip("/"), int(data[offset + 48 : offset + 58])
        if offset + 60 + size > len(data):
            raise ValueError(f"member '{name}' is cut short")
        members[name] = data[offset + 60 : offset + 60 + size]
        offset += 60 + size + size % 2
    return members


def _tar(parts: dict[str, bytes], name: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(_unpacked(parts, name)))


def _unpacked(parts: dict[str, bytes], name: str) -> bytes:
    packed = next((part for part in parts if part.startswith(name)), None)
    if packed is None:
        raise ValueError(f"it has no {name}")
    if packed.endswith(".xz"):
        return lzma.decompress(parts[packed])
    if packed.endswith(".gz"):
        return gzip.decompress(parts[packed])
    if packed.endswith(".zst"):
        with open_zstd(io.BytesIO(parts[packed])) as unpacked:
            return unpacked.read()
    return parts[packed]
