"""`edgepack publish`: package a project and push its bundle to a hub."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.commands._hub_client import hub_options
from edgepack.commands._source import SOURCE, opened_project
from edgepack.errors import BadInput

if TYPE_CHECKING:
    from edgepack.commands._hub_client import HubClient
    from oci.descriptor import Descriptor
    from packager.package import Packaged

_SHOWN_BYTES = 5_000_000  # a smaller blob is there before its line is read
_DEFAULT_TARGETS = ("x86", "arm")


@click.command("publish", short_help="Package a project and push its bundle to a hub.")
@click.argument("source", type=SOURCE, default=Path())
@click.option("--target", "targets", multiple=True, help="Target to publish for; repeatable. Default: x86 and arm.")
@click.option("--tag", default="latest", show_default=True, help="Tag in the hub's registry.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, targets: tuple[str, ...], tag: str, hub_url: str, token: str | None, as_json: bool) -> None:
    """Check and package SOURCE, a model file or a project, and publish it as the newest version of its pipeline.

    \b
    Example:
      edgepack publish examples/wine-line
      edgepack publish model.onnx --target arm
    """
    from arch.catalog import Catalog
    from bundle.bundle import version_of
    from edgepack.commands import _progress
    from edgepack.commands._hub_client import HubClient, print_json
    from edgepack.commands.cache import cache_folder
    from edgepack.commands.targets import target_folders
    from packager.checks import Checklist
    from packager.package import package

    catalog = Catalog.read(target_folders(source), os.environ)
    wanted = sorted({catalog.parse(each) for each in targets or _DEFAULT_TARGETS})
    with HubClient(hub_url, token) as hub:
        hub.pipelines()  # a wrong token or a hub that is away is told before the work, not after
        checklist = Checklist(notice=_progress.notice)
        made = package(
            opened_project(source), wanted, checklist=checklist, cache=cache_folder(os.environ), catalog=catalog
        )
        for note in made.notes:
            click.echo(f"note: {note}", err=True)
        push(hub, made, tag)
    said = {
        "pipeline": made.spec.name,
        "version": version_of(made.index.digest),
        "index": str(made.index.digest),
        "manifests": {str(target): str(image.digest) for target, image in zip(wanted, made.index.images, strict=True)},
        "parity": made.parity,
        "hub": hub.url,
    }
    if as_json:
        print_json(said)
        return
    click.echo(f"published '{said['pipeline']}' version {said['version']} for {', '.join(map(str, wanted))}")
    click.echo(f"index {said['index']}")
    click.echo(f"next: edgepack deploy {said['pipeline']} --device NAME")


def _progress(descriptor: Descriptor) -> None:
    if sys.stderr.isatty() and descriptor.size >= _SHOWN_BYTES:
        click.echo(f"pushing {descriptor.digest[:19]}… ({descriptor.size / 1e6:.0f} MB)", err=True)


def push(hub: HubClient, made: Packaged, tag: str) -> None:
    """Push a bundle and the reports on it, the tag last: a version is published with everything that belongs to it."""
    from oci.credentials import Bearer
    from oci.registry import Registry

    with Registry(hub.host, Bearer(hub.token), progress=_progress) as registry:
        for image in made.index.images:
            registry.push_image(made.spec.name, image)
        for referrer in made.referrers:
            registry.push_image(made.spec.name, referrer)
        pushed = registry.push_index(made.spec.name, tag, made.index)
    if pushed != made.index.digest:
        raise BadInput(f"hub '{hub.url}' knows the bundle as {pushed}, it is {made.index.digest}: do not use it")
