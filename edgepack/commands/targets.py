"""`edgepack targets`: what images can be built for."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(as_json: bool) -> None:
    """List the targets: architecture and accelerator, and what an image for them stands on.

    \b
    Example:
      edgepack targets
      edgepack targets --json
    """
    found = rows()
    if as_json:
        import orjson

        click.echo(orjson.dumps(found))
        return
    click.echo(f"{'target':14}{'platform':18}{'python':8}{'base':18}{'glibc':7}{'status':10}providers")
    for row in found:
        widths = {"target": 14, "platform": 18, "python": 8, "base": 18, "glibc": 7, "status": 10}
        click.echo("".join(row[key].ljust(width) for key, width in widths.items()) + ", ".join(row["providers"]))


def rows() -> list[dict[str, Any]]:
    """The list that `--json` prints."""
    from arch.traits import every_traits

    return [
        {
            "target": str(traits.target),
            "platform": str(traits.target.platform),
            "python": traits.python,
            "base": traits.base,
            "providers": list(traits.providers),
            "glibc": traits.glibc,
            "status": traits.status,
        }
        for traits in every_traits()
    ]
