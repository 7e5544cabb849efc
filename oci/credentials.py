"""What a registry is told about who asks, and the challenges by which it asks (distribution token
specification, RFC 7235). Where credentials are kept stands in `docker_config.py`.

Nothing here shows a secret in its `repr`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TypeAlias

_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')


@dataclass(frozen=True)
class Basic:
    """A user and a password. Given to the registry, or to the token server that it names."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Bearer:
    """A token that is sent with each request, to the registry only."""

    token: str = field(repr=False)

    @property
    def header(self) -> str:
        """The value of an Authorization header."""
        return f"Bearer {self.token}"


@dataclass(frozen=True)
class IdentityToken:
    """What some registries give for a login: the token server takes it for tokens (its "refresh token")."""

    token: str = field(repr=False)


Credentials: TypeAlias = Basic | Bearer | IdentityToken


@dataclass(frozen=True)
class Challenge:
    """A `WWW-Authenticate` header: the scheme, and for `bearer` where tokens come from and what for."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Read a header; of several challenges the first counts."""
        scheme, _, rest = header.strip().partition(" ")
        said = {key.lower(): text for key, text in _PARAMETER.findall(rest)}
        return cls(scheme.lower(), said.get("realm", ""), said.get("service", ""), said.get("scope", ""))
