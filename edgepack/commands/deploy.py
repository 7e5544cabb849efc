"""`edgepack deploy`: let a device run a published pipeline; what else it runs stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgepack.commands._hub_client import hub_options
from edgepack.errors import BadInput, Unreachable

if TYPE_CHECKING:
    from edgepack.commands._hub_client import HubClient
    from fleet.messages import Assignment, PipelineView

_ATTEMPTS = 8


@click.command("deploy", short_help="Let a device run a published pipeline.")
@click.argument("pipeline")
@click.option("--device", required=True, help="Name or id of the device.")
@click.option("--version", help="Index digest or version UUID. Default: the newest that was published.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(pipeline: str, device: str, version: str | None, hub_url: str, token: str | None, as_json: bool) -> None:
    """Assign PIPELINE to a device. Another pipeline is added to what it runs, the same one is replaced.

    \b
    Example:
      edgepack deploy wine-line --device press-1
    """
    from edgepack.commands._hub_client import HubClient, print_json

    with HubClient(hub_url, token) as hub:
        view = choose(hub.pipelines().pipelines, pipeline, version)
        made = _assign(hub, device, view)
    if as_json:
        print_json({"device": device, "pipeline": pipeline, "version": view.version, "index": view.index,
                    "manifest": made.pipelines[pipeline].manifest, "sequence": made.sequence})  # fmt: skip
    else:
        click.echo(f"device '{device}' is to run '{pipeline}' version {view.version} (assignment {made.sequence})")


def choose(published: list[PipelineView], pipeline: str, version: str | None) -> PipelineView:
    """Find a published version by UUID or digest, else the newest. Raises BadInput that lists what there is."""
    same = [view for view in published if view.pipeline == pipeline]
    if not same:
        names = ", ".join(sorted({view.pipeline for view in published})) or "nothing yet"
        raise BadInput(
            f"pipeline '{pipeline}' is not published: the hub has {names}; publish it with `edgepack publish`"
        )
    found = [view for view in same if version in (None, view.version, view.index)]
    if not found:
        there = ", ".join(view.version for view in same[:5])
        raise BadInput(f"pipeline '{pipeline}' has no version '{version}': there is {there}", field="version")
    return found[0]


def _assign(hub: HubClient, device: str, view: PipelineView) -> Assignment:
    """Change one entry of an assignment; somebody else's change in between means reading it again."""
    for _ in range(_ATTEMPTS):
        now = hub.assignment(device)
        # what is assigned already is named by index, which the hub resolves for the device's target
        wanted = {name: assigned.index for name, assigned in now.pipelines.items()} | {view.pipeline: view.index}
        made = hub.assign(device, wanted, now.sequence)
        if made is not None:
            return made
    raise Unreachable(f"the assignment of '{device}' changed {_ATTEMPTS} times meanwhile: try again")
