"""What `edgepack doctor` looks at: whether this machine can build images, and what more it could do."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from arch.finding import Finding, examine
from arch.target import host_target
from arch.traits import traits_of
from buildx.layer_cache import list_cache
from buildx.mirror import APT, SECURITY, find_mirror, find_security
from buildx.resolve import resolve
from edgepack.errors import BadInput, Unreachable

_TIMEOUT_S = 5
_SOCKET = "unix:///var/run/docker.sock"
_SAID = 200  # characters of what the resolver says
_PROBE = "click"  # a package that every index of Python packages has


def look_around(cache: Path, environ: Mapping[str, str], apt: Path = APT) -> list[Finding]:
    """Look at mirror, index, cache and engine. What the direct builder does without is not needed."""
    return [
        examine("machine", lambda: str(host_target())),
        examine("cache", partial(_cache, cache)),
        examine("package index", partial(_index, environ)),
        examine("debian mirror", partial(_mirror, environ, apt)),
        examine("security updates", partial(_security, environ, apt), needed=False),
        examine("signatures", partial(_signatures, environ, apt), needed=False),
        examine("sbom", _sbom, needed=False),
        examine("docker engine", partial(_engine, environ), needed=False),
        examine("docker buildx", partial(_buildx, environ), needed=False),
    ]


def _cache(cache: Path) -> str:
    above = next(each for each in (cache, *cache.parents) if each.is_dir())
    if not os.access(above, os.W_OK | os.X_OK):
        raise BadInput(f"'{cache}' cannot be written: set EDGEPACK_CACHE to a folder that can")
    held = sum(part.size_bytes for part in list_cache(cache))
    return f"'{cache}', {held / 1e6:.0f} MB of it used, {shutil.disk_usage(above).free / 1e9:.1f} GB free"


def _index(environ: Mapping[str, str]) -> str:
    """Ask it by way of uv, as a build does."""
    try:
        offers = resolve(traits_of(host_target()), [_PROBE], None, environ)[_PROBE]
    except BadInput as error:
        raise BadInput(
            "no index of Python packages answers: set UV_DEFAULT_INDEX to the address of one, or build with --wheels "
            f"DIR ({' '.join(str(error).split())[:_SAID]}…)"
        ) from error
    return f"answers, {urlsplit(offers[0].url).hostname or 'in a folder'}"


def _mirror(environ: Mapping[str, str], apt: Path) -> str:
    mirror = find_mirror(environ, apt)
    release = traits_of(host_target()).debian_release
    request = urllib.request.Request(f"{mirror.uri}/dists/{release}/InRelease", method="HEAD")  # noqa: S310 - or file:
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return f"has {release}, {urlsplit(mirror.uri).hostname or mirror.uri}"
    except OSError as error:
        raise Unreachable(
            f"{mirror.uri} does not give release '{release}': {getattr(error, 'reason', error)}"
        ) from error


def _security(environ: Mapping[str, str], apt: Path) -> str:
    release = traits_of(host_target()).debian_release
    updates = find_security(environ, apt, release)
    if updates is None:
        raise BadInput(f"no archive of {release}'s security updates is known here: set {SECURITY}, or have apt use one")
    return f"from {urlsplit(updates.uri).hostname or updates.uri}"


def _signatures(environ: Mapping[str, str], apt: Path) -> str:
    try:
        keyring = find_mirror(environ, apt).keyring
    except BadInput as error:
        raise BadInput("no mirror is known whose signatures could be checked") from error
    if not shutil.which("gpgv") or not keyring.is_file():
        raise BadInput(f"gpgv or '{keyring}' is missing: Debian's signatures are not checked; install both")
    return "Debian's signatures are checked with gpgv"


def _sbom() -> str:
    try:
        import cyclonedx
    except ImportError as error:
        raise BadInput("no cyclonedx-python-lib, so images get no SBOM: pip install 'edgepack[packager]'") from error
    return f"CycloneDX by {cyclonedx.__name__}"


def _engine(environ: Mapping[str, str]) -> str:
    host = environ.get("DOCKER_HOST") or _SOCKET
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        # asked for nothing: the library would leave its own half of the socket open
        raise BadInput(f"none is here: '{host}' is not there; start one or set DOCKER_HOST")
    from buildx.engine import Engine

    engine = Engine.connect(environ, timeout_s=_TIMEOUT_S)
    try:
        return f"{engine.version} on {engine.host.arch}"
    finally:
        engine.close()


def _buildx(environ: Mapping[str, str]) -> str:
    from buildx.docker_cli import DockerCli

    return DockerCli.find(environ, shown=False).version
