"""`edgepack-agent run`: serve, and talk to the hub, until told to stop."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edge_agent.agent import Agent

log = logging.getLogger("edgepack.agent")


@click.command(name="run")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="OCI layout folder of a bundle: active until the hub's first assignment.  [EDGEPACK_BUNDLE]",
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The agent's data folder.  [EDGEPACK_DATA]"
)
@click.option("--host", help="Address to listen on. Default: 127.0.0.1.  [EDGEPACK_HOST]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on. Default: 8080.  [EDGEPACK_PORT]")
@click.option("--hub", help="The hub to join, together with --token.  [EDGEPACK_HUB]")
@click.option("--token", help="The join token, used once.  [EDGEPACK_JOIN_TOKEN]")
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file with the CA of a hub of your own.  [EDGEPACK_CA]",
)
@click.option("--name", help="What the hub calls this device. Default: the host's name.  [EDGEPACK_NAME]")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Of what it prints while it runs: json is an object a line. Default: text.  [EDGEPACK_LOG_FORMAT]",
)
@click.option("--access-log", is_flag=True, default=None, help="Print a line a request.  [EDGEPACK_ACCESS_LOG=1]")
def command(
    bundle: Path | None,
    data: Path | None,
    host: str | None,
    port: int | None,
    hub: str | None,
    token: str | None,
    ca: Path | None,
    name: str | None,
    log_format: str | None,
    access_log: bool | None,
) -> int:
    """Serve the pipelines of this device over HTTP, and do what its hub assigns.

    \b
    Example:
      edgepack-agent run --bundle ./bundle
      edgepack-agent run --hub https://hub.example:8090 --token join-…
    """
    from edge_agent.config import Config
    from edge_agent.run import run_agent
    from edge_agent.telemetry.events import set_up_logging

    config = Config.read(
        os.environ, bundle=bundle, data=data, host=host, port=port, hub=hub, token=token, ca=ca, name=name,
        log_format=log_format, access_log=access_log,
    )  # fmt: skip
    set_up_logging(config.log_format, access=config.access_log)
    return run_agent(config, [config.bundle] if config.bundle else [], ready=_say)


def _say(agent: Agent, url: str) -> None:
    from edge_agent.telemetry.events import event

    names = ", ".join(agent.serving.names) or "no pipeline yet"
    click.echo(f"serving {names} on {url}")
    if not agent.has_hub:
        hint = "edgepack-agent enrol --hub URL --token TOKEN"
        event(log, "not enrolled: rows stay on this device", enrol=hint)
