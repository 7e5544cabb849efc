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
    """List or prune the layers, wheels, Debian packages, environments and conversions that builds keep.

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
    from packager.environments import list_environments
    from packager.kept import list_conversions
    from packager.registries.kept import list_downloads
    from packager.worker_environments import list_worker_environments

    folder = cache_folder(os.environ)
    environments, conversions = list_environments(folder), list_conversions(folder)
    parts = [(part.name, part.files, part.size_bytes) for part in list_cache(folder)]
    parts.append(("environments", len(environments), sum(each.size_bytes for each in environments)))
    parts.append(("workers", *list_worker_environments(folder)))
    parts.append(("conversions", *conversions))
    parts.append(("registry", *list_downloads(folder)))
    if as_json:
        import msgspec

        found = {
            "path": str(folder),
            "size_bytes": sum(size for _, _, size in parts),
            "parts": [{"name": name, "files": files, "size_bytes": size} for name, files, size in parts],
            "environments": environments,
        }
        click.echo(msgspec.json.encode(found))
        return
    click.echo(str(folder))
    for name, files, size in parts:
        unit = "made " if name in ("environments", "workers") else "files"
        click.echo(f"  {name:14}{files:6} {unit} {size / 1e6:9.1f} MB")
    for each in environments:
        click.echo(
            f"    {each.title}: Python {each.python}, {len(each.packages)} packages, {each.size_bytes / 1e6:.0f} MB, "
            f"made in {each.seconds:g} s"
        )


@command.command("prune")
@click.option(
    "--unused-days", type=click.FloatRange(0), default=0, help="Keep what a build used in so many days. Default: 0."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def prune_command(unused_days: float, as_json: bool) -> None:
    """Remove what lies in the cache. Refused while a build is using it."""
    from buildx.layer_cache import prune_cache
    from packager.environments import prune_environments
    from packager.kept import prune_conversions
    from packager.registries.kept import prune_downloads
    from packager.worker_environments import prune_worker_environments

    folder, unused_s, now_s = cache_folder(os.environ), unused_days * _DAY_S, time.time()
    freed = prune_cache(folder, unused_s, now_s)
    freed += prune_environments(folder, unused_s, now_s) + prune_conversions(folder, unused_s, now_s)
    freed += prune_downloads(folder, unused_s, now_s) + prune_worker_environments(folder, unused_s, now_s)
    if as_json:
        import orjson

        click.echo(orjson.dumps({"path": str(folder), "freed_bytes": freed}))
        return
    click.echo(f"{freed / 1e6:.1f} MB removed from {folder}")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """EDGEPACK_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(environ.get("EDGEPACK_CACHE") or platformdirs.user_cache_path("edgepack")).absolute()
