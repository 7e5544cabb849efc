"""`edgepack login`: keep a hub's token for this user."""

from __future__ import annotations

import click

from edgepack.commands._hub_client import hub_options


@click.command("login", short_help="Keep a hub's token for this user.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(hub_url: str, token: str | None, as_json: bool) -> None:
    """Check an admin token with the hub, and keep it (0600) for the commands that speak to that hub.

    Without --token it is asked for.

    \b
    Example:
      edgepack login --hub https://hub.plant.example --token epa_...
    """
    from edgepack.commands._hub_client import HubClient, print_json
    from edgepack.commands._logins import remember_token

    given = token or click.prompt("admin token", hide_input=True, err=True)
    with HubClient(hub_url, given.strip()) as hub:
        hub.devices()
        path = remember_token(hub.url, hub.token)
    if as_json:
        print_json({"hub": hub.url, "kept_in": str(path)})
    else:
        click.echo(f"logged in at {hub.url}; the token is kept in {path}")
