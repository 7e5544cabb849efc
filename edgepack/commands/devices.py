"""`edgepack devices`: list devices, make join tokens, revoke a device."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from edgepack.commands._hub_client import hub_options
from edgepack.errors import BadInput

if TYPE_CHECKING:
    from fleet.messages import DeviceView

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


@click.group("devices", invoke_without_command=True, short_help="List devices, make join tokens, revoke a device.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, hub_url: str, token: str | None, as_json: bool) -> None:
    """List every enrolled device: what it should run, what it runs, when it was last seen.

    \b
    Example:
      edgepack devices
      edgepack devices token --group line-1 --expires 24h
      edgepack devices revoke press-1
    """
    if context.invoked_subcommand is not None:
        # `devices --hub U token` means the same as `devices token --hub U`
        context.obj = {"hub_url": hub_url, "token": token, "as_json": as_json}
        return
    from edgepack.commands._hub_client import HubClient, print_json, print_table

    with HubClient(hub_url, token) as hub:
        found = hub.devices()
    if as_json:
        print_json(found)
    elif not found.devices:
        click.echo("no device is enrolled yet: make a token with `edgepack devices token`")
    else:
        print_table(
            ("NAME", "TARGET", "GROUP", "LAST SEEN", "RUNS"), [_row(each, time.time()) for each in found.devices]
        )


@command.command("token", short_help="Make a join token.")
@hub_options
@click.option("--group", help="Tag of the device that joins with it.")
@click.option("--expires", default="24h", show_default=True, help="How long it may be used: 90s, 30m, 24h, 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def make_token(
    context: click.Context, hub_url: str, token: str | None, group: str | None, expires: str, as_json: bool
) -> None:
    """Make a join token for one device. It is shown once and used once.

    \b
    Example:
      edgepack devices token --group line-1 --expires 24h
    """
    from edgepack.commands._hub_client import HubClient, print_json

    hub_url, token, as_json = _outer(context, hub_url, token, as_json)
    with HubClient(hub_url, token) as hub:
        made = hub.make_token(group, seconds(expires))
    if as_json:
        print_json(made)
        return
    click.echo(made.token)
    click.echo(f"on the device: edgepack-agent enrol --hub {hub.url} --token {made.token}", err=True)


@command.command("revoke", short_help="Refuse a device from now on.")
@click.argument("device")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def revoke(context: click.Context, device: str, hub_url: str, token: str | None, as_json: bool) -> None:
    """Refuse DEVICE, a name or an id, from now on. Its rows in the log stay; its name may be given again.

    \b
    Example:
      edgepack devices revoke press-1
    """
    from edgepack.commands._hub_client import HubClient, print_json

    hub_url, token, as_json = _outer(context, hub_url, token, as_json)
    with HubClient(hub_url, token) as hub:
        hub.revoke(device)
    if as_json:
        print_json({"revoked": device})
    else:
        click.echo(f"device '{device}' is revoked")


def seconds(text: str) -> int:
    """Read `24h` as seconds. Raises BadInput for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,8})(s|m|min|h|d)?", text.strip())
    if not match:
        raise BadInput(f"--expires '{text}' is not a length of time: write 90s, 30m, 24h or 7d", field="expires")
    return int(match[1]) * _UNITS[match[2] or "s"]


def _outer(context: click.Context, hub_url: str, token: str | None, as_json: bool) -> tuple[str, str | None, bool]:
    """Options given before the subcommand count where the subcommand has none of its own."""
    outer = context.obj or {}
    own = context.get_parameter_source("hub_url") == click.core.ParameterSource.COMMANDLINE
    return (
        (hub_url if own else outer.get("hub_url", hub_url)),
        token or outer.get("token"),
        as_json or bool(outer.get("as_json")),
    )


def _row(view: DeviceView, now: float) -> tuple[str, ...]:
    seen = "never" if view.last_seen is None else f"{max(0, int(now - view.last_seen))} s ago"
    reports = view.inventory.pipelines if view.inventory else {}
    assigned = view.assignment.pipelines if view.assignment else {}
    runs = [
        _state(name, (name in reports and reports[name].state) or "waiting") for name in sorted({*reports, *assigned})
    ]
    return view.name, view.target, view.group or "-", seen, ", ".join(runs) or "-"


def _state(name: str, state: str) -> str:
    return name if state == "active" else f"{name} ({state})"
