"""`edgepack-agent tune`: try settings on this device, and keep the best for each bundle."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import click


@click.command(name="tune")
@click.option("--pipeline", help="Tune this one only. Default: all that are installed.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.01, 600), help="For each setting.")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The agent's data folder.  [EDGEPACK_DATA]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(pipeline: str | None, seconds: float, data: Path | None, as_json: bool) -> None:
    """Measure each installed bundle with 1, 2, 4, ... threads and keep what suits this device.

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


def _tune(state: Any, folders: Any, name: str, manifest: str, seconds: float) -> dict[str, Any]:
    from edge_agent.tuning import best, tries

    tried = tries(folders.bundle(manifest), folders.environments, seconds)
    kept = best(tried)
    state.tune(manifest, kept)
    each = [
        {"threads": t.threads, "row_us": round(t.row_us, 1), "cpu_us": round(t.cpu_us, 1), "place": t.place}
        for t in tried
    ]
    return {"pipeline": name, "manifest": manifest, "threads": kept.threads, "tried": each}


def _told(found: dict[str, Any]) -> str:
    lines = [f"pipeline    {found['pipeline']}: {found['threads']} threads are kept"]
    for each in found["tried"]:
        lines.append(
            f"            {each['threads']} threads: {each['row_us']} µs a row, {each['cpu_us']} µs of CPU, "
            f"answered in {'the ' if each['place'] == 'serving thread' else 'a '}{each['place']}"
        )
    return "\n".join(lines)
