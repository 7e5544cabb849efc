"""`edgepack cache`: what builds keep on this machine, and how to be rid of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import click

_DAY_S = 86_400


@click.group()
def command() -> None:
    """List or prune the layers, wheels and Debian packages that builds keep.

    Everything in the cache can be made or fetched again. EDGEPACK_CACHE names another folder for it.

    \b
    Example:
      edgepack cache list
      edgepack cache prune --unused-days 30
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_command(as_json: bool) -> None:
    """Show what lies in the cache."""
    from buildx.layer_cache import list_cache

    folder = cache_folder(os.environ)
    parts = list_cache(folder)
    if as_json:
        import orjson

        found = [{"name": part.name, "files": part.files, "size_bytes": part.size_bytes} for part in parts]
        size_bytes = sum(part.size_bytes for part in parts)
        click.echo(orjson.dumps({"path": str(folder), "size_bytes": size_bytes, "parts": found}))
        return
    click.echo(str(folder))
    for part in parts:
        click.echo(f"  {part.name:14}{part.files:6} files {part.size_bytes / 1e6:9.1f} MB")


@command.command("prune")
@click.option(
    "--unused-days", type=click.FloatRange(0), default=0, help="Keep what a build used in so many days. Default: 0."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def prune_command(unused_days: float, as_json: bool) -> None:
    """Remove what lies in the cache. Refused while a build is using it."""
    from buildx.layer_cache import prune_cache

    folder = cache_folder(os.environ)
    freed = prune_cache(folder, unused_days * _DAY_S, time.time())
    if as_json:
        import orjson

        click.echo(orjson.dumps({"path": str(folder), "freed_bytes": freed}))
        return
    click.echo(f"{freed / 1e6:.1f} MB removed from {folder}")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """EDGEPACK_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(environ.get("EDGEPACK_CACHE") or platformdirs.user_cache_path("edgepack")).absolute()
