"""How a build is told on a terminal."""

from __future__ import annotations

import sys

import click


class TerminalReport:
    """Steps on standard error, on one line that is wiped at the end, if that is a terminal; notices always, each
    once.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self._said: set[str] = set()

    def __enter__(self) -> TerminalReport:
        return self

    def __exit__(self, *_: object) -> None:
        self._wipe()

    def step(self, text: str) -> None:
        """Show what is being done now."""
        if self.is_terminal:
            self._wipe()
            click.echo(f"{text} …", nl=False, err=True)

    def notice(self, text: str) -> None:
        """Say what the user should know."""
        if text not in self._said:
            self._said.add(text)
            self._wipe()
            click.echo(f"warning: {text}", err=True)

    def _wipe(self) -> None:
        if self.is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
