"""`edgepack doctor`: can this machine build images, and with what?"""

from __future__ import annotations

import json
import os

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> int:
    """Look at this machine: cache, package index, Debian mirror, docker.

    Ends with 0 when all that the direct builder needs is there, else with 1. A docker engine is not needed.

    \b
    Example:
      edgepack doctor
      edgepack doctor --json
    """
    from arch.finding import are_well
    from buildx.workstation import look_around
    from edgepack.commands.cache import cache_folder

    found = look_around(cache_folder(os.environ), os.environ)
    if as_json:
        click.echo(json.dumps({"well": are_well(found), "checks": [each.to_dict() for each in found]}))
    else:
        click.echo("\n".join(map(str, found)))
    return 0 if are_well(found) else 1
