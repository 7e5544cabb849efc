"""Our own base: a Debian root file system with a Python and nothing that is not needed to run it.

Made from .debs of one release by the rules below; no package manager and no maintainer script runs. What is left out:
shells, pip, documentation except licences, manuals, translations, test suites. What is added: the CA bundle, users,
and the record of installed packages that scanners read (`var/lib/dpkg/status.d`, as other images without dpkg have
it).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from buildx.debian import Deb, PackagesIndex, read_deb
from buildx.entries import Entry, file, folder, link
from buildx.lock import LockedBase, LockedPackage
from edgepack.errors import BuildFailed

USER = 65532  # numeric, as in other images without a shell: orchestrators can see that it is not root
_WANTED = (
    "python{python}-minimal",
    "libpython{python}-stdlib",
    "libstdc++6",
    "libgcc-s1",
    "zlib1g",
    "ca-certificates",
    "tzdata",
    "base-files",
    "netbase",
)
# Named as dependencies for their maintainer scripts, or for parts of Python that the agent does not use.
_WITHOUT = (
    "awk",
    "debconf",
    "debconf-2.0",
    "debianutils",
    "dpkg",
    "libacl1",
    "libdb5.3",
    "libmd0",
    "libpcre2-8-0",
    "libselinux1",
    "mawk",
    "media-types",
    "openssl",
    "readline-common",
    "tar",
)
_MERGED = ("bin", "lib", "lib64", "sbin")  # usrmerge: these are links into /usr
_DROPPED = re.compile(
    r"""
    usr/share/(man|info|locale|lintian|bug|doc-base|menu|bash-completion|python3|pixmaps|applications|binfmts|readline)(/|$)
    | usr/share/doc/(?!.*/copyright$)
    | usr/share/zoneinfo/(right|posix)(/|$)
    | usr/share/ca-certificates(/|$)
    | usr/lib/[^/]+/(gconv|audit)(/|$)
    | usr/lib/locale(/|$)
    | usr/s?bin/(?!python3\.\d+$)
    | usr/lib/python3\.\d+/(test|tests|idlelib|turtledemo|tkinter|ensurepip|pydoc_data|lib2to3)(/|$)
    | usr/lib/python3\.\d+/.*/tests?(/|$)
    | (home|root|boot|media|mnt|srv|proc|sys|dev)/.+
    | var/(backups|cache|local|mail|opt|spool|lock)(/|$)
    | etc/(cron|init|default|logrotate|update-motd|profile|skel|dpkg|motd|issue|python3|ca-certificates)[^/]*(/|$)
    """,
    re.VERBOSE,
)
_CERTIFICATES = "usr/share/ca-certificates/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def resolve_base(index: PackagesIndex, release: str, python: str) -> LockedBase:
    """Choose the packages of a base."""
    wanted = [name.format(python=python) for name in _WANTED]
    chosen = index.closure(wanted, _WITHOUT)
    return LockedBase(release, [LockedPackage(each.name, each.version, each.sha256, each.size) for each in chosen])


def base_entries(packages: Sequence[LockedPackage], debs: Mapping[str, Path]) -> list[Entry]:
    """Assemble the root file system from the .debs, in the order of their names The bytecode is added by
    buildx/pyc.py.
    """
    entries: dict[str, Entry] = {entry.path: entry for entry in _frame()}
    certificates: dict[str, bytes] = {}
    for package in packages:
        deb = read_deb(debs[package.name])
        entries[f"var/lib/dpkg/status.d/{package.name}"] = file(
            f"var/lib/dpkg/status.d/{package.name}", _status(deb.control)
        )
        for entry in _files(deb):
            if entry.path.startswith(_CERTIFICATES) and entry.kind == "file":
                certificates[entry.path] = b"".join(entry.source.chunks() if entry.source else ())
            if not _DROPPED.match(entry.path):
                _place(entries, entry, package.name)
    entries[_BUNDLE] = file(_BUNDLE, b"".join(text.rstrip() + b"\n" for _, text in sorted(certificates.items())))
    return [entry for entry in entries.values() if entry.kind != "folder" or _is_needed(entry.path, entries)]


def _frame() -> Iterator[Entry]:
    """What no package brings: links of a merged /usr, users, and the places that programs expect."""
    yield from (link(name, f"usr/{name}") for name in _MERGED)
    yield from (folder(name) for name in ("dev", "proc", "run", "sys", "usr/lib64", "usr/sbin", "usr/bin"))
    yield from (folder(name, 0o1777) for name in ("tmp", "var/tmp"))
    yield file(
        "etc/passwd",
        f"root:x:0:0:root:/root:/sbin/nologin\nedgepack:x:{USER}:{USER}::/persist:/sbin/nologin\n".encode(),
    )
    yield file("etc/group", f"root:x:0:\nedgepack:x:{USER}:\n".encode())
    yield file(
        "etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
    )
    yield link("usr/lib/ssl/cert.pem", f"/{_BUNDLE}")  # where OpenSSL looks unless it is told otherwise


def _status(control: str) -> bytes:
    """A package's stanza with the line by which dpkg's readers take it for installed."""
    return re.sub(r"\n+$", "", control).replace("\n", "\nStatus: install ok installed\n", 1).encode() + b"\n"


def _files(deb: Deb) -> Iterator[Entry]:
    """The files of a package where they lie when /usr is merged. Special files and set-user-id bits are left out."""
    for member in deb.data:
        path = _merged(os.path.normpath(member.name))
        if path == "." or (member.isdir() and path in _MERGED):
            continue
        if path.startswith(("../", "/")):
            raise BuildFailed(f"a Debian package holds the path '{member.name}', which leads out of the image: refused")
        if member.isdir():
            yield folder(path, 0o1777 if path in ("tmp", "var/tmp") else 0o755)
        elif member.issym():
            yield link(path, _merged_target(os.path.normpath(member.name), member.linkname))
        elif member.isfile() or member.islnk():
            content = deb.data.extractfile(member)
            yield file(path, content.read() if content else b"", 0o755 if member.mode & 0o111 else 0o644)


def _merged(path: str) -> str:
    return f"usr/{path}" if path.split("/")[0] in _MERGED else path


def _merged_target(path: str, target: str) -> str:
    """A relative link keeps pointing to the same file after its own place or its target's moved below /usr."""
    if target.startswith("/"):
        return f"/{_merged(target[1:])}"
    meant = _merged(os.path.normpath(f"{PurePosixPath(path).parent}/{target}"))
    return os.path.relpath(f"/{meant}", f"/{PurePosixPath(_merged(path)).parent}")


def _place(entries: dict[str, Entry], entry: Entry, package: str) -> None:
    known = entries.get(entry.path)
    if known is not None and known.kind == "folder" and entry.kind == "folder":
        return
    if known is not None:
        raise BuildFailed(f"package '{package}' brings '/{entry.path}', which another package of the base brings too")
    entries[entry.path] = entry


def _is_needed(path: str, entries: Mapping[str, Entry]) -> bool:
    """Folders of what was dropped go too, except the places that programs expect."""
    if path in ("dev", "proc", "run", "sys", "tmp", "var/tmp", "root", "home"):
        return True
    return any(other.startswith(f"{path}/") and entry.kind != "folder" for other, entry in entries.items())
