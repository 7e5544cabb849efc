"""`edgepack-agent doctor`: can this device do what it was given?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edge_agent.doctor import Checkup


@click.command(name="doctor")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The agent's data folder.  [EDGEPACK_DATA]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(data: Path | None, as_json: bool) -> int:
    """Look at this device: processor, memory, disk, accelerator, and whether models can use it.

    Ends with 0 when all that is needed is there, else with 1.

    \b
    Example:
      edgepack-agent doctor
      edgepack-agent doctor --json
    """
    from arch.finding import are_well
    from edge_agent.config import Config
    from edge_agent.doctor import check_up

    found = check_up(Config.read(os.environ, data=data), os.environ)
    click.echo(json.dumps(found.to_dict()) if as_json else told(found))
    return 0 if are_well(found.findings) else 1


def told(found: Checkup) -> str:
    """All that was found out, a line each."""
    facts, nvidia = found.facts, found.facts.nvidia
    memory = f"{facts.memory_bytes / 1e9:.1f} GB" if facts.memory_bytes else "unknown"
    lines = [
        f"target      {found.target}",
        f"processor   {facts.processor}, {facts.cpus} CPUs usable ({' '.join(facts.cpu_flags) or 'no known flags'})",
        f"memory      {memory}",
        f"system      Linux {facts.kernel}, glibc {facts.glibc}, Python {facts.python}",
    ]
    if nvidia:
        release = f", L4T {nvidia.l4t} (JetPack {nvidia.jetpack or 'unknown'})" if nvidia.l4t else ""
        devices = ", ".join(nvidia.devices) or "no device"
        driver, cuda = nvidia.driver or "not seen", nvidia.cuda or "not known: no libcuda.so.1 here"
        lines.append(f"nvidia      {devices}, driver {driver}, CUDA up to {cuda}{release}")
    return "\n".join([*lines, *map(str, found.findings)])
