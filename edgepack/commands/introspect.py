"""`edgepack introspect`: ADS's named tests of an artifact, without running anything of it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgepack.commands._source import SOURCE
from edgepack.errors import BadInput


@click.command()
@click.argument("source", type=SOURCE, default=Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, as_json: bool) -> None:
    """Look at an artifact of Oracle ADS by its named tests: runtime.yaml, score.py, the schemas.

    SOURCE is a folder or a zip with a score.py. Nothing of it is executed; exit code 2 when a test fails, but with
    --json, which says it.

    \b
    Example:
      edgepack introspect churn/
      edgepack introspect churn.zip --json
    """
    from edgepack.commands.cache import cache_folder
    from packager.dialects.ads_introspection import introspect

    if not source.exists():
        raise BadInput(f"no such file: '{source}': expected a folder or zip with a score.py")
    found = introspect(source, cache_folder(os.environ))
    if as_json:
        import orjson

        click.echo(orjson.dumps({"ArtifactTestResults": found}))
        return
    for name, each in found.items():
        said = each["description"] if each["success"] else each["error_msg"]
        click.echo(f"{'ok  ' if each['success'] else 'FAIL'} {name:20} {each['category']:22} {said}")
    failed = [name for name, each in found.items() if not each["success"]]
    if failed:
        raise BadInput(f"'{source.name or source}' fails {len(failed)} of {len(found)} tests: {', '.join(failed)}")
