"""A program whose verbs are modules of one package, loaded when asked for: a start pays for one verb only."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click


class VerbGroup(click.Group):
    """A group of commands: `<package>.<verb>` has one named `command`."""

    def __init__(self, *, package: str, verbs: Sequence[str], **settings: Any) -> None:
        super().__init__(**settings)
        self._package, self._verbs = package, tuple(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, sorted."""
        return sorted(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb."""
        if cmd_name not in self._verbs:
            return None
        command: click.Command = import_module(f"{self._package}.{cmd_name}").command
        return command
