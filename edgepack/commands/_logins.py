"""Admin tokens by hub URL, in the user's configuration folder (0600).

`edgepack login` puts a token there; a hub on this machine puts there which file holds its token, so that the
secret itself stays in the hub's data folder.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgepack.errors import BadInput


class _Login(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A token, or the file of a hub on this machine that holds it."""

    token: str | None = None
    token_file: str | None = None


def find_token(url: str) -> str:
    """The token that is remembered for a hub. Raises BadInput that says how to give one."""
    token = known_token(url)
    if token is None:
        raise BadInput(
            f"no token for hub '{url}': run `edgepack login --hub {url} --token T`, or set EDGEPACK_TOKEN",
            field="token",
        )
    return token


def known_token(url: str) -> str | None:
    """The token that is remembered for a hub, if one is. Raises BadInput for one that cannot be read."""
    login = _read_logins().get(url, _Login())
    if login.token is not None:
        return login.token
    if login.token_file is not None and Path(login.token_file).is_file():
        try:
            return Path(login.token_file).read_text().strip()
        except OSError as error:
            raise BadInput(
                f"the token of hub '{url}' in '{login.token_file}' cannot be read: {error.strerror}"
            ) from error
    return None


def remember_token(url: str, token: str) -> Path:
    """Keep a token for a hub, for this user alone. Returns the file. Raises BadInput where it cannot be written."""
    try:
        return _remember(url, _Login(token=token))
    except OSError as error:
        raise BadInput(
            f"'{logins_path()}' cannot be written: {error.strerror}; set XDG_CONFIG_HOME to a folder that can, or "
            "EDGEPACK_TOKEN instead of logging in"
        ) from error


def remember_token_file(url: str, token_file: Path) -> None:
    """Keep where a hub on this machine has its token; a user without a configuration folder goes without."""
    try:
        _remember(url, _Login(token_file=str(token_file)))
    except (OSError, BadInput):
        click.echo(
            f"note: commands will not find the token by themselves: set EDGEPACK_TOKEN to what is in {token_file}",
            err=True,
        )


def logins_path() -> Path:
    """Where logins are kept."""
    import platformdirs

    return platformdirs.user_config_path("edgepack") / "hubs.json"


def _remember(url: str, login: _Login) -> Path:
    from durable.files import make_folder, write_atomically

    path = logins_path()
    make_folder(path.parent)
    # a hub whose data folder is gone will not come back under that token
    living = {
        at: each for at, each in _read_logins().items() if each.token_file is None or Path(each.token_file).exists()
    }
    logins = {**living, url: login}
    write_atomically(path, msgspec.json.format(msgspec.json.encode(dict(sorted(logins.items())))), mode=0o600)
    return path


def _read_logins() -> dict[str, _Login]:
    path = logins_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Login])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput(f"'{path}' does not read: {error}; delete it and run `edgepack login` again") from error
