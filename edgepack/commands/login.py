"""`edgepack login`: keep a hub's token for this user."""

from __future__ import annotations

import sys

import click

from edgepack.commands._hub_client import hub_options
from edgepack.errors import BadInput


@click.command("login", short_help="Keep a hub's token for this user.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(hub_url: str, token: str | None, as_json: bool) -> None:
    """Check an admin token with the hub, and keep it (0600) for the commands that speak to that hub.

    Without --token it is asked for, or read from standard input where that is no terminal.

    \b
    Example:
      edgepack login --hub https://hub.plant.example --token epa_...
      edgepack login --hub https://hub.plant.example < token-file
    """
    from edgepack.commands._hub_client import HubClient, print_json
    from edgepack.commands._logins import remember_token

    with HubClient(hub_url, token or _asked()) as hub:
        hub.devices()
        path = remember_token(hub.url, hub.token)
    if as_json:
        print_json({"hub": hub.url, "kept_in": str(path)})
    else:
        click.echo(f"logged in at {hub.url}; the token is kept in {path}")


def _asked() -> str:
    """The token from whoever sits there, else from a pipe or file."""
    if sys.stdin.isatty():
        return str(click.prompt("admin token", hide_input=True, err=True)).strip()
    given = sys.stdin.readline().strip()
    if not given:
        raise BadInput("no token: give --token, or the token on standard input", field="token")
    return given
