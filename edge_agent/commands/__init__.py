"""The `edgepack-agent` program: what a device is told on its command line. A verb's module is loaded when it
is asked for.
"""

from __future__ import annotations

import click

from edge_agent.verbs import VerbGroup
from edgepack import __version__

_VERBS = ("doctor", "enrol", "run", "status", "tune")


@click.group(cls=VerbGroup, package=__name__, verbs=_VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgepack-agent")
def program() -> None:
    """Serve models on this device, and bring each inference home.

    \b
    Example:
      edgepack-agent enrol --hub https://hub.example:8090 --token join-…
      edgepack-agent run
      edgepack-agent status
      edgepack-agent tune
    """
