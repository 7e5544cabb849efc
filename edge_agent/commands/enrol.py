"""`edgepack-agent enrol`: join a hub's fleet with a one-use token."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click


@click.command(name="enrol")
@click.option("--hub", help="The hub's URL; https, or http on this very machine.  [EDGEPACK_HUB]")
@click.option("--token", help="The join token, from: edgepack devices token.  [EDGEPACK_JOIN_TOKEN]")
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file with the CA of a hub of your own.  [EDGEPACK_CA]",
)
@click.option("--name", help="What the hub calls this device. Default: the host's name.  [EDGEPACK_NAME]")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The agent's data folder.  [EDGEPACK_DATA]"
)
@click.option("--force", is_flag=True, help="Leave the identity that is there for a new one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    hub: str | None,
    token: str | None,
    ca: Path | None,
    name: str | None,
    data: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Join a hub's fleet. An agent that runs on the same data folder notices by itself.

    \b
    Example:
      edgepack-agent enrol --hub https://hub.example:8090 --token join-… --name line-1
    """
    from edge_agent.config import Config, target_of
    from edge_agent.folders import Folders
    from edge_agent.link.enrol import enrol, joining
    from edgepack.errors import BadInput

    config = Config.read(os.environ, hub=hub, token=token, ca=ca, name=name, data=data)
    if not config.hub or not config.token:
        raise BadInput(f"{'--hub' if not config.hub else '--token'} is missing: give the hub's URL and a join token")
    folders = Folders(config.data)
    with joining(folders) as state:
        given = enrol(
            folders,
            state,
            config.hub,
            config.token,
            name=config.name,
            ca=config.ca,
            force=force,
            target=target_of(config),
        )
    who = given.enrolled
    if given.already and name is not None and who.name != name:
        raise BadInput(
            f"this device is '{who.name}' at hub '{who.hub}' already, not '{name}': leave --name out, or use --force "
            "to enrol it anew",
            field="name",
        )
    if as_json:
        said = {
            "device": who.device,
            "name": who.name,
            "hub": who.hub,
            "data": str(config.data),
            "already": given.already,
        }
        click.echo(json.dumps(said))
    else:
        word = "is enrolled already" if given.already else "enrolled"
        click.echo(f"device '{who.name}' ({who.device}) {word} at {who.hub}")
