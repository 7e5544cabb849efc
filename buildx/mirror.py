"""Which Debian mirror to use: EDGEPACK_DEBIAN_MIRROR, else the one this machine's apt uses. None is built in.

Likewise the archive of security updates: EDGEPACK_DEBIAN_SECURITY_MIRROR, or apt's. Whoever names a mirror by the
variable has named all there is: apt is then not asked for updates either.

apt's configuration holds one-line entries (`*.list`) and deb822 stanzas (`*.sources`); sources.list(5). The first
entry wins that serves a Debian release's `main`. Other archives and Ubuntu are passed over.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import BadInput

VARIABLE = "EDGEPACK_DEBIAN_MIRROR"
SECURITY = "EDGEPACK_DEBIAN_SECURITY_MIRROR"
APT = Path("/etc/apt")
_DEBIAN = {
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
}
_SCHEMES = ("http://", "https://", "file:")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Mirror:
    """Where a Debian archive lies, without a slash at the end, and the keys that its releases are signed with."""

    uri: str
    keyring: Path = _KEYRING


@dataclass(frozen=True)
class _Source:
    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: Path


def find_mirror(environ: Mapping[str, str], apt: Path) -> Mirror:
    """Find the mirror. Raises BadInput, with the two ways out, on a machine that names none."""
    given = _given(environ, VARIABLE)
    if given:
        return given
    for source in _sources(apt):
        if source.suite in _DEBIAN and "main" in source.components and source.uri.startswith(_SCHEMES):
            return Mirror(source.uri.rstrip("/"), source.keyring)
    raise BadInput(
        f"no Debian mirror is known here: apt on this machine names none, so set {VARIABLE} to the address of one, "
        "or give --base an OCI layout with Python in it"
    )


def find_security(environ: Mapping[str, str], apt: Path, release: str) -> Mirror | None:
    """Find the archive of a release's security updates; None where the machine names none."""
    given = _given(environ, SECURITY)
    if given or environ.get(VARIABLE, "").strip():
        return given
    for source in _sources(apt):
        if source.suite == f"{release}-security" and "main" in source.components and source.uri.startswith(_SCHEMES):
            return Mirror(source.uri.rstrip("/"), source.keyring)
    return None


def _given(environ: Mapping[str, str], variable: str) -> Mirror | None:
    given = environ.get(variable, "").strip()
    if given and not given.startswith(_SCHEMES):
        raise BadInput(f"{variable} is '{given}': expected the http, https or file address of a Debian archive")
    return Mirror(given.rstrip("/")) if given else None


def _sources(apt: Path) -> Iterator[_Source]:
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if path.suffix == ".list":
            yield from _one_line_entries(text)
        elif path.suffix == ".sources":
            yield from _stanzas(text)


def _one_line_entries(text: str) -> Iterator[_Source]:
    """`deb [option=value …] uri suite component…`"""
    for line in text.splitlines():
        options = re.search(r"\[(.*?)\]", line)
        words = _words(re.sub(r"\[.*?\]", " ", line, count=1))
        if len(words) >= 4 and words[0] == "deb":
            keyring = re.search(r"signed-by=(/\S+)", options[1] if options else "")
            yield _Source(words[1], words[2], tuple(words[3:]), Path(keyring[1]) if keyring else _KEYRING)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


def _stanzas(text: str) -> Iterator[_Source]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", lines):
        fields = {
            key.lower(): value.strip()
            for key, value in re.findall(r"^(\S+?):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        signed = fields.get("signed-by", "")
        keyring = Path(signed) if signed.startswith("/") else _KEYRING  # else the key stands in the stanza itself
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield _Source(uri, suite, tuple(fields.get("components", "").split()), keyring)
