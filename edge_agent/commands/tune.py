"""`edgepack-agent tune`: try settings on this device, and keep the best for each bundle."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_agent.folders import Folders
    from edge_agent.pipelines.tuning import Try
    from edge_agent.state import State


@click.command(name="tune")
@click.option("--pipeline", help="Tune this one only. Default: all that are installed.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.01, 600), help="For each setting.")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The agent's data folder.  [EDGEPACK_DATA]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(pipeline: str | None, seconds: float, data: Path | None, as_json: bool) -> None:
    """Measure each installed bundle with different numbers of threads, processes and requests at once, and keep what
    suits this device.

    The settings hold from the next start of the agent on. Best run while the device does nothing else.

    \b
    Example:
      edgepack-agent tune
      edgepack-agent tune --pipeline wine-line --seconds 5
    """
    from edge_agent.config import Config
    from edge_agent.folders import Folders
    from edge_agent.state import State
    from edgepack.errors import BadInput

    folders = Folders(Config.read(os.environ, data=data).data)
    with closing(State.read(folders.state)) as state:
        installed = {name: each.active.manifest for name, each in state.installed().items()}
    chosen = {name: manifest for name, manifest in installed.items() if pipeline in (None, name)}
    if not chosen:
        there = ", ".join(f"'{name}'" for name in installed) or "none"
        raise BadInput(f"no pipeline '{pipeline or '*'}' is installed here: there is {there}", field="pipeline")
    with closing(State.open(folders.state)) as state:
        found = [_tune(state, folders, name, manifest, seconds) for name, manifest in sorted(chosen.items())]
    click.echo(json.dumps({"pipelines": found}) if as_json else "\n".join(map(_told, found)))


def _tune(state: State, folders: Folders, name: str, manifest: str, seconds: float) -> dict[str, Any]:
    from edge_agent.pipelines.tuning import best, tries

    tried = []
    for each in tries(folders.bundle(manifest), folders.environments, seconds):
        tried.append(each)
        _show_progress(name, each)
    kept = best(tried)
    state.tune(manifest, kept)
    said = {"pipeline": name, "manifest": manifest}
    settings = {"threads": kept.threads, "replicas": kept.replicas, "at_once": kept.at_once}
    return {**said, **settings, "tried": list(map(_figures, tried))}


def _figures(tried: Try) -> dict[str, Any]:
    return {
        **asdict(tried.setting),
        "row_us": round(tried.row_us, 1),
        "cpu_us": round(tried.cpu_us, 1),
        "per_s": round(tried.per_s, 1),
        "processes_mib": round(tried.processes_mib, 1),
        "place": tried.place,
    }


def _show_progress(name: str, tried: Try) -> None:
    if sys.stderr.isatty():
        click.echo(f"{name}: {tried.setting} gives {tried.per_s:.0f} requests a second", err=True)


_HEAD = ("threads", "replicas", "at once", "µs a row", "µs of CPU", "requests/s", "MiB of processes", "answered in")


def _told(found: dict[str, Any]) -> str:
    kept = tuple(found[name] for name in ("threads", "replicas", "at_once"))
    rows = [
        (
            *map(str, (each["threads"], each["replicas"], each["at_once"], each["row_us"], each["cpu_us"])),
            *map(str, (each["per_s"], each["processes_mib"])),
            each["place"] + ("  <- kept" if (each["threads"], each["replicas"], each["at_once"]) == kept else ""),
        )
        for each in found["tried"]
    ]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    lines = [
        "  ".join((*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]))
        for row in (_HEAD, *rows)
    ]
    return "\n".join([f"pipeline {found['pipeline']}", *lines])
