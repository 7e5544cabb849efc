"""`edgepack pipelines`: what is published."""

from __future__ import annotations

import click

from edgepack.commands._hub_client import hub_options


@click.command("pipelines", short_help="List what is published at a hub.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(hub_url: str, token: str | None, as_json: bool) -> None:
    """List every published version, newest first.

    \b
    Example:
      edgepack pipelines
    """
    from edgepack.commands._hub_client import HubClient, print_json, print_table

    with HubClient(hub_url, token) as hub:
        found = hub.pipelines()
    if as_json:
        print_json(found)
    elif not found.pipelines:
        click.echo("nothing is published yet: edgepack publish SOURCE")
    else:
        rows = [
            (each.pipeline, each.version, each.index, ", ".join(sorted(each.manifests))) for each in found.pipelines
        ]
        print_table(("PIPELINE", "VERSION", "INDEX", "TARGETS"), rows)
