"""Model registries that this user knows: by a name, with their URL and credentials (0600), never in a project.

What the environment says comes first, as MLflow's own clients have it: MLFLOW_REGISTRY_URI or MLFLOW_TRACKING_URI, with
MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; for `databricks` DATABRICKS_HOST and
DATABRICKS_TOKEN. Credentials of the environment go to the registry of the environment alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from oci.credentials import Basic, Bearer


class KnownRegistry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A registry as it is kept. `added` is when, UTC, ISO 8601."""

    url: str
    added: str
    token: str | None = None
    user: str | None = None
    password: str | None = None

    @property
    def credentials(self) -> Basic | Bearer | None:
        """What it is told about who asks."""
        from oci.credentials import Basic, Bearer

        if self.token:
            return Bearer(self.token)
        return Basic(self.user, self.password or "") if self.user else None


def registries_path() -> Path:
    """Where registries are kept."""
    import platformdirs

    return platformdirs.user_config_path("edgepack") / "registries.json"


def read_registries() -> dict[str, KnownRegistry]:
    """All that are kept, by name. Raises BadInput for a file that does not read."""
    path = registries_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, KnownRegistry])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput(f"'{path}' does not read: {error}; delete it and run `edgepack registries add` again") from error


def write_registries(found: Mapping[str, KnownRegistry]) -> Path:
    """Keep them for this user alone. Returns the file. Raises BadInput where it cannot be written."""
    from durable.files import make_folder, write_atomically

    path = registries_path()
    try:
        make_folder(path.parent)
        data = msgspec.json.format(msgspec.json.encode(dict(sorted(found.items()))))
        write_atomically(path, data, mode=0o600)
    except OSError as error:
        raise BadInput(
            f"'{path}' cannot be written: {error.strerror}; set XDG_CONFIG_HOME to a folder that can, or "
            "MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN instead"
        ) from error
    return path


def registry_url(given: str | None, environ: Mapping[str, str]) -> str:
    """The URL of the registry that is meant: by URL or known name, else the environment's, else the only known one.

    Raises BadInput where none is, or the environment names what is no server.
    """
    from packager.registries.session import checked_url

    known = read_registries()
    if given:
        return known[given].url if given in known else checked_url(_expanded(given, environ))
    said = environ.get("MLFLOW_REGISTRY_URI") or environ.get("MLFLOW_TRACKING_URI")
    if said:
        return checked_url(_expanded(said, environ))
    if len(known) == 1:
        return next(iter(known.values())).url
    raise BadInput(
        "no registry is named: give --registry URL, set MLFLOW_TRACKING_URI, or keep one: `edgepack registries add`",
        field="registry",
    )


def registry_credentials(url: str, environ: Mapping[str, str]) -> Basic | Bearer | None:
    """What to tell the registry at `url`, None where nothing is known."""
    from oci.credentials import Basic, Bearer

    if url == _of_environment(environ.get("MLFLOW_REGISTRY_URI") or environ.get("MLFLOW_TRACKING_URI"), environ):
        if environ.get("MLFLOW_TRACKING_TOKEN"):
            return Bearer(environ["MLFLOW_TRACKING_TOKEN"])
        if environ.get("MLFLOW_TRACKING_USERNAME"):
            return Basic(environ["MLFLOW_TRACKING_USERNAME"], environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    if environ.get("DATABRICKS_TOKEN") and url == _of_environment("databricks", environ):
        return Bearer(environ["DATABRICKS_TOKEN"])
    return next((each.credentials for each in read_registries().values() if each.url == url), None)


def _of_environment(said: str | None, environ: Mapping[str, str]) -> str | None:
    from packager.registries.session import checked_url

    try:
        return checked_url(_expanded(said, environ)) if said else None
    except BadInput:  # what it names is no server: nobody's credentials
        return None


def _expanded(said: str, environ: Mapping[str, str]) -> str:
    """`databricks` stands for DATABRICKS_HOST; a host without a scheme is https there."""
    if said != "databricks":
        return said
    host = environ.get("DATABRICKS_HOST", "")
    if not host:
        raise BadInput("the registry is 'databricks', and DATABRICKS_HOST is not set: set it to the workspace's URL")
    return host if "://" in host else f"https://{host}"
