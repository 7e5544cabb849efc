"""A wheel's files as entries of a layer (binary distribution format, "Installing a wheel").

Nothing is executed and nothing generated: console scripts of dependencies are not made, an image has one program.
What lies under `.data/` goes to its scheme; `scripts` get the image's interpreter.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from buildx.entries import BytesSource, Entry, WheelMember
from buildx.unneeded import is_unneeded
from buildx.unused_libraries import without_unused
from edgepack.errors import BuildFailed


@dataclass(frozen=True)
class Place:
    """Where an image's Python is and where its packages lie; no leading slash in `site`."""

    python: str
    site: str


def wheel_entries(wheel: Path, place: Place) -> list[Entry]:
    """The files of a wheel that an image needs. Raises BuildFailed when it is not a wheel or leads out of its place."""
    return without_unused(_package(wheel), _needed(wheel, place))


def _needed(wheel: Path, place: Place) -> list[Entry]:
    """The same, with libraries as they are: whether one is used takes reading it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise BuildFailed(f"wheel '{wheel.name}' does not read: {error}") from error
    if not any(info.filename.endswith(".dist-info/WHEEL") for info in members):
        raise BuildFailed(f"'{wheel.name}' is not a wheel: it has no .dist-info/WHEEL")
    return list(_entries(wheel, members, place))


def check_apart(wheels: Iterable[Path], place: Place) -> None:
    """Raise BuildFailed when two wheels bring the same path: whichever lay on top would break the other."""
    owners: dict[str, Path] = {}
    for wheel in wheels:
        for entry in _needed(wheel, place):
            other = owners.setdefault(entry.path, wheel)
            if other != wheel:
                raise BuildFailed(
                    f"path '/{entry.path}' is brought by two wheels, '{other.name}' and '{wheel.name}': leave one out "
                    "of the requirements"
                )


def _entries(wheel: Path, members: list[zipfile.ZipInfo], place: Place) -> Iterator[Entry]:
    package = _package(wheel)
    for info in members:
        name = info.filename
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            raise BuildFailed(f"wheel '{wheel.name}' holds the path '{name}', which leads out of its place: refused")
        scheme, inside = _scheme(name)
        if scheme == "headers" or (scheme in ("purelib", "platlib") and is_unneeded(package, inside)):
            continue
        mode = 0o755 if scheme == "scripts" or (info.external_attr >> 16) & 0o111 else 0o644
        member = WheelMember.of(wheel, info)
        if scheme == "scripts":
            yield Entry(f"usr/local/bin/{inside}", "file", BytesSource(_script(member, place)), mode)
        else:
            yield Entry(f"usr/local/{inside}" if scheme == "data" else f"{place.site}/{inside}", "file", member, mode)


def _package(wheel: Path) -> str:
    return wheel.name.partition("-")[0].lower().replace("_", "-")


def _scheme(name: str) -> tuple[str, str]:
    """`x-1.data/scripts/run` → ("scripts", "run"); what lies elsewhere belongs to purelib."""
    parts = name.split("/", 2)
    if len(parts) == 3 and parts[0].endswith(".data"):
        return parts[1], parts[2]
    return "purelib", name


def _script(member: WheelMember, place: Place) -> bytes:
    """A script's content; `#!python` stands for the interpreter it is installed for."""
    data = b"".join(member.chunks())
    first, newline, rest = data.partition(b"\n")
    return f"#!{place.python}".encode() + newline + rest if first.startswith(b"#!python") else data
