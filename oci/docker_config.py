"""The credentials that `docker login` keeps: `config.json` in DOCKER_CONFIG or `~/.docker`, and the helper programs it
names (docker/cli, "Credential stores").

A helper is asked on its standard input and has a time limit. Neither what it answers nor what a config holds is ever
part of a message.
"""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgepack.errors import BadInput
from oci.credentials import Basic, Credentials, IdentityToken

HELPER_S = 30.0  # a helper may ask a keychain, and that its user
_LARGEST = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_TOKEN_USER = "<token>"  # noqa: S105 - by this user name a helper says that the secret is an identity token
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_NOT_FOUND = (
    b"credentials not found in native keychain"  # what every helper says for "none" (docker-credential-helpers)
)


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Config(msgspec.Struct, rename="camel"):
    auths: dict[str, _Auth] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _Said(msgspec.Struct):
    username: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


@dataclass(frozen=True)
class DockerConfig:
    """What one config.json says, and the environment that its helpers run in."""

    path: Path
    environ: Mapping[str, str]
    _said: _Config

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> DockerConfig:
        """Read the user's config; one that is not there says nothing. Raises BadInput for one that does not read."""
        home = environ.get("HOME", "")
        folder = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
        path = Path(folder, "config.json")
        try:
            if not folder or not path.is_file():
                return cls(path, environ, _Config())
            data = path.read_bytes()[: _LARGEST + 1]
            return cls(path, environ, msgspec.json.decode(data, type=_Config))
        except OSError as error:
            raise BadInput(f"'{path}' does not read: {error.strerror}; mend it or set DOCKER_CONFIG") from error
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # not chained: the decoder's own text may repeat a secret
            raise BadInput(f"'{path}' is not a docker config: mend it or set DOCKER_CONFIG") from None

    def credentials(self, host: str, timeout_s: float = HELPER_S) -> Credentials | None:
        """What to tell a registry, or None. A helper named for the host wins, then the store, then what is written.

        Raises BadInput when a helper is missing, fails or does not answer in time.
        """
        names = _names(host)
        helper = next((name for key, name in self._said.cred_helpers.items() if _bare(key) in names), None)
        written = next(((key, auth) for key, auth in self._said.auths.items() if _bare(key) in names), None)
        if helper is None and self._said.creds_store:
            helper = self._said.creds_store
        if helper is not None:
            # a store is asked by the key that it was filled with, which docker also notes among `auths`
            found = self._ask(helper, written[0] if written else host, timeout_s)
            if found is not None:
                return found
        return _written(written[1], self.path) if written else None

    def _ask(self, name: str, server: str, timeout_s: float) -> Credentials | None:
        """Run `docker-credential-<name> get` (docker-credential-helpers, "Development")."""
        if not _HELPER.fullmatch(name):
            raise BadInput(f"'{self.path}' names a credential helper that is no program's name: mend it")
        program = f"docker-credential-{name}"
        try:
            done = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                env=dict(self.environ),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BadInput(
                f"credential helper '{program}' gave no answer for '{server}' in {timeout_s:.0f} s: log in again"
            ) from error
        except OSError as error:
            raise BadInput(
                f"credential helper '{program}', which '{self.path}' names, does not run: {error.strerror}; install it "
                "or log in again"
            ) from error
        if done.returncode:
            if _NOT_FOUND in done.stdout:
                return None
            raise BadInput(f"credential helper '{program}' ended with {done.returncode} for '{server}': log in again")
        return _told(done.stdout, program)


def find_credentials(host: str, environ: Mapping[str, str]) -> Credentials | None:
    """What the user's docker is logged in with at a registry, or None."""
    return DockerConfig.read(environ).credentials(host)


def _told(answer: bytes, program: str) -> Credentials | None:
    try:
        said = msgspec.json.decode(answer, type=_Said)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # not chained: the decoder's own text may repeat the secret
        raise BadInput(f"credential helper '{program}' gave no answer that can be read: log in again") from None
    if not said.secret:
        return None
    return IdentityToken(said.secret) if said.username == _TOKEN_USER else Basic(said.username, said.secret)


def _written(auth: _Auth, path: Path) -> Credentials | None:
    if auth.identitytoken:
        return IdentityToken(auth.identitytoken)
    if auth.username:
        return Basic(auth.username, auth.password)
    if not auth.auth:
        return None
    try:
        user, colon, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise BadInput(f"'{path}' holds credentials that are not base64 of user:password: log in again")
    return Basic(user, password.rstrip("\0"))


def _bare(key: str) -> str:
    """The host of a key, which old clients wrote as a URL: `https://index.docker.io/v1/`."""
    return re.sub(r"^https?://", "", key).partition("/")[0].lower()


def _names(host: str) -> tuple[str, ...]:
    return _HUB if host.lower() in _HUB else (host.lower(),)
