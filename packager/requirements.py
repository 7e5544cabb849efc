"""`requirements.txt` of an upload: the libraries its code needs, as lines that a resolver takes.

Names, extras, versions and markers count. Where packages come from is the business of the machine that packages, so
options and addresses are refused; hashes are left out, because the wheels are locked by their own.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from edgepack.errors import BadInput

FILE = "requirements.txt"
LARGEST = 256 << 10  # bytes of the file
PROVIDED = ("wallaroo",)  # an empty module of that name is there for code that imports it

# What an upload may import without naming it, and the package it comes from; numpy is always there.
_KNOWN = {"pandas": "pandas"}
_ALWAYS = "numpy"
_HASH = re.compile(r"\s--hash[ =]\S+")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_requirements(data: bytes, where: str) -> list[str]:
    """The requirement lines, each in its one spelling, sorted. Raises BadInput that names the line."""
    found: dict[str, str] = {}
    for number, line in _lines(_text(data, where)):
        requirement = _requirement(line, f"{where}:{number}")
        name = canonicalize_name(requirement.name)
        if name in PROVIDED:
            continue
        if found.setdefault(f"{name} {requirement.marker or ''}", str(requirement)) != str(requirement):
            raise BadInput(f"{where}:{number} names '{requirement.name}' again: write it once")
    return sorted(found.values(), key=str.lower)


def with_imports(requirements: Iterable[str], imports: Iterable[str]) -> list[str]:
    """The same lines and what every worker needs: numpy, and pandas where the code imports it and no line names it."""
    lines = list(requirements)
    named = {name_of(line) for line in lines}
    wanted = {_ALWAYS, *(_KNOWN[name] for name in imports if name in _KNOWN)}
    return sorted([*lines, *(wanted - named)], key=str.lower)


def name_of(line: str) -> str:
    """The package that a line names, in its one spelling."""
    return str(canonicalize_name(Requirement(line).name))


def is_open(line: str) -> bool:
    """Whether a line allows every version."""
    return not Requirement(line).specifier


def pinned_version(line: str) -> str | None:
    """The version of a line that allows one alone, else None."""
    specifiers = list(Requirement(line).specifier)
    if len(specifiers) == 1 and specifiers[0].operator in ("==", "===") and "*" not in specifiers[0].version:
        return specifiers[0].version
    return None


def applies(line: str, python: str, machine: str) -> bool:
    """Whether a line's marker holds on a Linux machine with a Python (`3.11`)."""
    marker = Requirement(line).marker
    said = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    said |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return marker is None or marker.evaluate({**said, "extra": ""})


def repinned(line: str, version: str) -> str:
    """The same line with another version."""
    found = Requirement(line)
    extras = f"[{','.join(sorted(found.extras))}]" if found.extras else ""
    marker = f"; {found.marker}" if found.marker else ""
    return f"{found.name}{extras}=={version}{marker}"


def _text(data: bytes, where: str) -> str:
    """The text; PowerShell writes UTF-16 where a user redirects `pip freeze`."""
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} is not UTF-8: save it as plain text") from error


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines with their number, joined where they end in a backslash, without comments."""
    found: list[tuple[int, str]] = []
    part, first = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        first = first if part else number
        part += re.sub(r"(^|\s)#.*$", "", line)
        if part.endswith("\\"):
            part = f"{part[:-1]} "
            continue
        if part.strip():
            found.append((first, _HASH.sub("", f" {part}").strip()))
        part = ""
    return found + ([(first, part.strip())] if part.strip() else [])


def _requirement(line: str, where: str) -> Requirement:
    if line.startswith("-"):
        raise BadInput(f"{where} has the option {line[:60]!r}: expected packages only, indexes are set on this machine")
    try:
        found = Requirement(line)
    except InvalidRequirement as error:
        raise BadInput(f"{where} does not read: {line[:60]!r}: expected lines like scikit-learn==1.5.2") from error
    if found.url:
        raise BadInput(f"{where} names an address for '{found.name}': name a version, and put the wheel on your index")
    return found
