"""The `edgepack` program: one file a verb; each parses, calls the rooms, prints. A verb is loaded when asked for."""

from __future__ import annotations

from importlib import import_module

import click

from edgepack import __version__

_VERBS = (
    "build",
    "bundle",
    "cache",
    "check",
    "deploy",
    "devices",
    "doctor",
    "hub",
    "infer",
    "init",
    "inspect",
    "login",
    "logs",
    "pipelines",
    "publish",
    "serve",
    "targets",
    "verify",
)


class LazyGroup(click.Group):
    """A group whose verbs are modules beside this one, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, sorted."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb."""
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"edgepack.commands.{cmd_name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgepack")
def program() -> None:
    """Take a trained model to edge devices.

    \b
    Example:
      edgepack check model.onnx
      edgepack serve model.onnx
      edgepack build model.onnx --arch arm
    """
