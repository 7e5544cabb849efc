"""`edgepack targets`: what images can be built for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from arch.traits import Traits

_WIDTHS = {"target": 15, "platform": 16, "python": 8, "base": 18, "glibc": 7, "status": 24}


@click.command()
@click.argument("target", required=False)
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="A project's folder, for the target files in its targets/. Default: here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list; of one target, one JSON object.")
def command(target: str | None, project: Path, as_json: bool) -> None:
    """List the targets: architecture and accelerator, and what an image for them stands on.

    With a TARGET: all that is known of it, as a target file has it. A file of your own in targets/ of the project
    changes one or adds one: docs/targets.md.

    \b
    Example:
      edgepack targets
      edgepack targets --json
      edgepack targets arm/jetson
    """
    from arch.catalog import Catalog

    catalog = Catalog.read(target_folders(project), os.environ)
    if target:
        _show(whole(catalog.traits(catalog.parse(target))), as_json)
    elif as_json:
        click.echo(json.dumps([row(traits) for traits in catalog.rows.values()]))
    else:
        _list([row(traits) for traits in catalog.rows.values()])


def row(traits: Traits) -> dict[str, Any]:
    """One line of the list. A base of None is one that the user must name."""
    return {
        "target": str(traits.target),
        "platform": str(traits.target.platform),
        "python": traits.python,
        "base": traits.base,
        "providers": list(traits.providers),
        "glibc": traits.glibc,
        "status": traits.status,
    }


def whole(traits: Traits) -> dict[str, Any]:
    """All that a target file says."""
    return {
        **row(traits),
        "site": traits.site,
        "exclude": list(traits.exclude),
        "brings": list(traits.brings),
        "indexes": list(traits.indexes),
        "run": list(traits.run),
        "replace": {name: list(lines) for name, lines in traits.replace.items()},
        "pythons": dict(traits.pythons),
        "refused": dict(traits.refused),
        "environment": dict(traits.environment),
        "labels": dict(traits.labels),
        "options": {name: dict(given) for name, given in traits.options.items()},
        "cache": {name: dict(given) for name, given in traits.cache.items()},
    }


def _list(found: list[dict[str, Any]]) -> None:
    from arch.target import REFUSED

    click.echo("".join(key.ljust(width) for key, width in _WIDTHS.items()) + "providers")
    for each in found:
        said = {**each, "base": each["base"] or "yours: --base"}
        short = ", ".join(name.removesuffix("ExecutionProvider") for name in each["providers"])
        click.echo("".join(f"{said[key]:<{width - 1}} " for key, width in _WIDTHS.items()) + short)
    for name, reason in REFUSED.items():
        click.echo(f"no {name}: {reason}")


def _show(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(said))
        return
    del said["platform"]  # follows from the target
    if said["base"] is None:
        click.echo('# base = "host/repository:tag"   is yours to write here, or to give by --base')
    plain = {key: value for key, value in said.items() if value and not isinstance(value, dict)}
    for key, value in plain.items():
        click.echo(f"{key} = {json.dumps(value)}")
    for key, table in ((key, value) for key, value in said.items() if value and isinstance(value, dict)):
        if key in ("options", "cache"):
            for provider, given in table.items():
                _show_table(f"{key}.{provider}", given)
        else:
            _show_table(key, table)


def _show_table(name: str, table: dict[str, Any]) -> None:
    click.echo(f"\n[{name}]")
    for key, value in table.items():
        click.echo(f"{json.dumps(key)} = {json.dumps(value)}")


def own_targets() -> Path:
    """The folder of the user's own target files."""
    import platformdirs

    return Path(platformdirs.user_config_path("edgepack")) / "targets"


def target_folders(source: Path) -> list[Path]:
    """Where target files lie for a project or a bare model file, the last wins."""
    from arch.catalog import FOLDER
    from edgepack.commands._source import working_folder

    folder = working_folder(source) or (source if source.is_dir() else source.parent)
    return [own_targets(), folder / FOLDER]
