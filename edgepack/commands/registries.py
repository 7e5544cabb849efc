"""`edgepack registries`: the model registries that this user knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from edgepack.commands._registry_logins import KnownRegistry


@click.group("registries", short_help="Add, list or remove model registries.")
def command() -> None:
    """Keep the URL and credentials of MLflow servers for this user (0600), by a name of your own.

    \b
    Example:
      edgepack registries add plant --url https://mlflow.plant.example --token-stdin < token-file
      edgepack models --registry plant
      edgepack registries remove plant
    """


@command.command("add")
@click.argument("name")
@click.option("--url", required=True, help="Of the MLflow server.")
@click.option("--username", help="For a server that asks for a user; the password comes from standard input.")
@click.option("--token-stdin", is_flag=True, help="Read a token from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def add_command(name: str, url: str, username: str | None, token_stdin: bool, as_json: bool) -> None:
    """Check a registry with its credentials, and keep it as NAME; one of that name is replaced."""
    from datetime import datetime, timezone

    from bundle.pipeline import dns_label
    from edgepack.commands._hub_client import print_json
    from edgepack.commands._registry_logins import KnownRegistry, read_registries, write_registries
    from packager.registries.mlflow_registry import MlflowRegistry
    from packager.registries.session import RegistrySession, checked_url

    if username and token_stdin:
        raise BadInput("give --username or --token-stdin, not both", field="username")
    secret = _secret("password" if username else "token") if username or token_stdin else None
    made = KnownRegistry(
        url=checked_url(url),
        added=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        token=secret if token_stdin else None,
        user=username,
        password=secret if username else None,
    )
    with RegistrySession(made.url, made.credentials) as session:
        MlflowRegistry(session).check()
    path = write_registries({**read_registries(), dns_label(name): made})
    if as_json:
        print_json({"name": name, "url": made.url, "kept_in": str(path)})
    else:
        click.echo(f"registry '{name}' at {made.url} is kept in {path}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_command(as_json: bool) -> None:
    """Show the registries that are kept; no secret is shown."""
    from edgepack.commands._hub_client import print_json, print_table
    from edgepack.commands._registry_logins import read_registries

    known = read_registries()
    if as_json:
        rows = [
            {"name": name, "url": each.url, "login": _login(each), "added": each.added} for name, each in known.items()
        ]
        print_json({"registries": rows})
        return
    print_table(("name", "url", "login", "added"), [(n, k.url, _login(k), k.added) for n, k in known.items()])


@command.command("remove")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def remove_command(name: str, as_json: bool) -> None:
    """Forget a registry and its credentials."""
    from edgepack.commands._hub_client import print_json
    from edgepack.commands._registry_logins import read_registries, write_registries

    known = read_registries()
    if name not in known:
        there = ", ".join(known) or "none"
        raise BadInput(f"no registry '{name}' is kept: there is {there}", field="name")
    url = known.pop(name).url
    write_registries(known)
    if as_json:
        print_json({"name": name, "url": url, "removed": True})
    else:
        click.echo(f"registry '{name}' is forgotten; what was fetched from it stays in the cache")


def _login(known: KnownRegistry) -> str:
    """How it is told who asks."""
    return "token" if known.token else f"user {known.user}" if known.user else "none"


def _secret(what: str) -> str:
    """A secret from whoever sits there, else from a pipe or file."""
    import sys

    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True)).strip()
    given = sys.stdin.readline().strip()
    if not given:
        raise BadInput(f"no {what} on standard input: give one line", field=what)
    return given
