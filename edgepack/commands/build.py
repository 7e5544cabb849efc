"""`edgepack build`: from a model file or a project to OCI images, one for each target."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from arch.catalog import Catalog
    from arch.target import Target


@click.command()
@click.argument("source", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--arch",
    "archs",
    multiple=True,
    type=click.Choice(["x86", "arm"]),
    help="May be given again. Default: this machine's.",
)
@click.option(
    "--accel",
    metavar="ACCEL",
    default="none",
    show_default=True,
    help="The accelerator of every --arch; see: edgepack targets.",
)
@click.option("--target", "targets", multiple=True, metavar="ARCH[/ACCEL]", help="Both in one; may be given again.")
@click.option(
    "--builder",
    type=click.Choice(["auto", "direct", "buildx"]),
    default="auto",
    show_default=True,
    help="direct needs no Docker; buildx calls docker buildx build; auto is direct.",
)
@click.option(
    "--base", metavar="LAYOUT|REF", help="An image with Python instead of our own base: layout, tar, or in a registry."
)
@click.option("--wheels", type=click.Path(path_type=Path), help="A folder of wheels that win over the index.")
@click.option(
    "--compression",
    type=click.Choice(["splice", "gzip", "zstd"]),
    default="splice",
    show_default=True,
    help="splice is fastest, gzip smaller, zstd for newer engines only.",
)
@click.option(
    "-o", "output", type=click.Path(path_type=Path), help="The file. Default: dist/<pipeline>-<arch>-<accel>.oci.tar."
)
@click.option("--push", "push", metavar="REF", help="Push to host/repository[:tag]; a file is written only with -o.")
@click.option("--plain-http", is_flag=True, help="Speak http to a registry that is not on this machine.")
@click.option("--load", is_flag=True, help="Load the image into this machine's docker engine as well.")
@click.option(
    "--emit",
    "emits",
    multiple=True,
    type=click.Choice(["compose", "quadlet", "k8s"]),
    help="Also write what starts the image, beside the file; may be given again.",
)
@click.option("--no-layer-cache", is_flag=True, help="Make every layer anew, and keep none.")
@click.option("--locked", is_flag=True, help="Use edgepack.lock as it is; refuse to resolve anything anew.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: Path,
    archs: tuple[str, ...],
    accel: str,
    targets: tuple[str, ...],
    builder: str,
    base: str | None,
    wheels: Path | None,
    compression: str,
    output: Path | None,
    push: str | None,
    plain_http: bool,
    load: bool,
    emits: tuple[str, ...],
    no_layer_cache: bool,
    locked: bool,
    as_json: bool,
) -> None:
    """Build the image of a pipeline: agent, runtime and bundle on a small base, ready to serve.

    SOURCE is a model file, or a folder with an edgepack.toml. Needs no Docker and no emulation; the same source and
    the same edgepack.lock give the same bytes on every machine. Several targets become one file with one index.

    \b
    Example:
      edgepack build model.onnx --arch arm
      edgepack build examples/wine-line --arch x86 --arch arm -o wine.oci.tar
      docker load -i wine.oci.tar
      edgepack build examples/wine-line --arch arm --push 127.0.0.1:5000/wine-line:1 --emit k8s
    """
    from arch.catalog import FOLDER, Catalog
    from arch.target import plain_targets
    from buildx.build import Options, Workplace, build
    from buildx.engine import Engine
    from edgepack.commands import _progress
    from edgepack.commands._build_result import emit, show
    from edgepack.commands._push import Push
    from edgepack.commands._terminal import TerminalReport
    from edgepack.commands.cache import cache_folder
    from edgepack.commands.targets import own_targets
    from packager.checks import Checklist
    from packager.package import package
    from packager.project import Project
    from packager.wheels import WheelSource

    root = source if source.is_dir() else source.parent
    wanted = wanted_targets(archs, accel, targets, Catalog.read([own_targets(), root / FOLDER], os.environ))
    environ, cache = os.environ, cache_folder(os.environ)
    with TerminalReport() as report, Push.opened(push, base, plain_http, environ, cache, report) as registry:
        engine = Engine.connect(environ) if load else None  # what is missing is said before the work begins
        report.step("checking the model")
        project = Project.open(source)
        # for the plain targets always, so that an image does not depend on which others were built beside it
        source_of_wheels = WheelSource(wheels, locked, report)
        packaged = package(
            project,
            {*plain_targets(), *wanted},
            checklist=Checklist(notice=_progress.notice),
            asked=wanted,
            cache=cache,
            wheels=source_of_wheels,
        )
        options = Options(
            project.root,
            _touched(source),
            output,
            base,
            wheels,
            compression,
            locked,
            not no_layer_cache,
            builder="buildx" if builder == "buildx" else "direct",
            reference=push,
            keep_file=push is None,
            plain_http=plain_http,
        )
        workplace = Workplace(cache, environ, targets=(own_targets(),), terminal=report.is_terminal)
        built = build(packaged.index, wanted, options, workplace, report, [registry] if registry else [], engine)
        files = emit(built, packaged.spec, emits, is_loaded=load, is_pushed=push is not None)
    show(built, packaged, files, is_auto=builder == "auto", is_loaded=load, is_pushed=push is not None, as_json=as_json)


def wanted_targets(
    archs: tuple[str, ...], accel: str, targets: tuple[str, ...], catalog: Catalog | None = None
) -> list[Target]:
    """What the options ask for; without any, this machine's architecture with the accelerator."""
    from arch.target import Target, host_target

    parse = catalog.parse if catalog else Target.parse
    asked = [parse(text) for text in (*targets, *(f"{arch}/{accel}" for arch in archs))]
    return sorted(set(asked)) or [parse(f"{host_target().arch}/{accel}")]


def _touched(source: Path) -> Path:
    """What git is asked about: the folder of an edgepack.toml, or the model file."""
    source = source.absolute()
    return source.parent if source.name == "edgepack.toml" else source
