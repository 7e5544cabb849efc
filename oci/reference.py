"""`Reference`: how people name an image in a registry: `host[:port]/repository[:tag][@digest]`.

The host is always said: there is no registry that a name without one means. Grammar: distribution-spec,
"Pulling manifests".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from edgepack.errors import BadInput
from oci.digest import Digest

_HOST = re.compile(
    r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9-]+(?=:))(?::\d{1,5})?"
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LONGEST = 255  # characters of host and repository together, as registries allow


@dataclass(frozen=True)
class Reference:
    """A place in a registry. With neither tag nor digest it means the tag `latest`."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference.

        Raises BadInput that says what is missing; credentials in it are refused and not repeated.
        """
        host, slash, rest = text.partition("/")
        if "@" in host:
            raise BadInput("a reference holds no user or password: give them apart, and host/repository here")
        if not slash or not _HOST.fullmatch(host):
            raise BadInput(f"'{text[:200]}' names no registry: expected host[:port]/repository[:tag][@digest]")
        named, at, digest = rest.partition("@")
        repository, colon, tag = named.partition(":")
        check_repository(repository)
        if colon:
            check_tag(tag)
        if len(host) + len(repository) > _LONGEST:
            raise BadInput(f"'{text[:60]}…' is too long: host and repository have at most {_LONGEST} characters")
        if at and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise BadInput(f"'{digest[:100]}' is not a digest: expected sha256: and 64 hexadecimal digits")
        return cls(host, repository, tag or None, Digest.parse(digest) if at else None)

    @property
    def pointer(self) -> str:
        """What to ask the registry for: the digest where there is one, else the tag."""
        return self.digest or self.tag or "latest"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def check_repository(repository: str) -> None:
    """Raise BadInput unless this is a repository's name."""
    if not _REPOSITORY.fullmatch(repository):
        raise BadInput(
            f"'{repository[:100]}' is not a repository: expected lower-case letters, digits, '.', '_', '-' and '/'"
        )


def check_tag(tag: str) -> None:
    """Raise BadInput unless this is a tag."""
    if not _TAG.fullmatch(tag):
        raise BadInput(f"'{tag[:140]}' is not a tag: expected at most 128 letters, digits, '.', '_' and '-'")


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine, told by the name alone: nothing is looked up."""
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
