"""What a command tells a registry: for a hub the admin's token, for any other what `docker login` keeps.

EDGEPACK_TOKEN is for the hub of EDGEPACK_HUB alone, a token that `edgepack login` keeps for the hub that it was given
for: no other registry is ever told it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgepack.commands._hub_client import DEFAULT_HUB
from edgepack.commands._logins import known_token

if TYPE_CHECKING:
    from oci.credentials import Credentials


def find_credentials(host: str, environ: Mapping[str, str], plain_http: bool = False) -> Credentials | None:
    """What to tell the registry at `host`, or None. Raises BadInput for a login that does not read."""
    from oci.credentials import Bearer
    from oci.docker_config import find_credentials as docker_credentials
    from oci.reference import is_loopback

    # over plain http a token goes to this very machine only
    if is_loopback(host) or not plain_http:
        token = _hub_token(f"{'http' if is_loopback(host) else 'https'}://{host}", environ)
        if token is not None:
            return Bearer(token)
    return docker_credentials(host, environ)


def _hub_token(url: str, environ: Mapping[str, str]) -> str | None:
    hub = urlsplit((environ.get("EDGEPACK_HUB") or DEFAULT_HUB).strip())
    given = environ.get("EDGEPACK_TOKEN")
    if given and (hub.scheme, hub.netloc) == urlsplit(url)[:2]:
        return given
    return known_token(url)
