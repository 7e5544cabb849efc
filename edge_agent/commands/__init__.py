"""The `edgepack-agent` program: what a device is told on its command line. A verb's module is loaded when it
is asked for.
"""

from __future__ import annotations

from importlib import import_module

import click

from edgepack import __version__

_VERBS = ("doctor", "enrol", "run", "status", "tune")


class LazyGroup(click.Group):
    """A group whose verbs are modules beside this one, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, sorted."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb."""
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"edge_agent.commands.{cmd_name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
