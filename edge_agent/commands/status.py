"""`edgepack-agent status`: what this device is, runs and has not brought home yet."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edge_agent.status import Status


@click.command(name="status")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The agent's data folder.  [EDGEPACK_DATA]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(data: Path | None, as_json: bool) -> None:
    """Show what this device runs, whether its agent answers, and what its hub does not have yet.

    \b
    Example:
      edgepack-agent status
      edgepack-agent status --json
    """
    from edge_agent.config import Config
    from edge_agent.status import read_status

    status = read_status(Config.read(os.environ, data=data).data)
    click.echo(json.dumps(status.to_dict()) if as_json else _told(status))


def _told(status: Status) -> str:
    who = f"'{status.name}' ({status.device}) at {status.hub}" if status.device else "not enrolled"
    lines = [f"device      {who}", f"agent       {f'answers on {status.url}' if status.running else 'does not run'}"]
    if status.last_check_in_ms:
        ago_s = max(0, time.time() - status.last_check_in_ms / 1000)
        lines.append(f"check-in    {ago_s:.0f} s ago, assignment {status.sequence}")
    lines.append(f"sandbox     {status.sandbox} ({status.sandbox_policy})")
    lines += [f"error       {loop}: {error}" for loop, error in sorted(status.errors.items())]
    lines += [f"models      {name}: {reason}" for name, reason in sorted(status.models.items())]
    for each in status.pipelines:
        lines.append(f"pipeline    {each.name}  {each.state}  {each.version}  pending rows {each.pending_rows}")
        lines += [f"            {each.reason}"] if each.reason else []
        lines += [f"            step {step} in sandbox {level}" for step, level in each.sandbox.items()]
        for model, choice in each.providers.items():
            lines.append(f"            {model} computes on {choice}")
            lines += [f"            {model} not on {name}: {reason}" for name, reason in choice.skipped.items()]
        if each.refused_segments:
            lines.append(f"            the hub refused {each.refused_segments} segments, they stay on disk")
    return "\n".join(lines if status.pipelines else [*lines, "pipeline    none"])
