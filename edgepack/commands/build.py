"""`edgepack build`: from a model file or a project to OCI images, one for each target."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from arch.target import Target
    from buildx.outcome import Built
    from packager.package import Packaged


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
    "--accel", type=click.Choice(["none"]), default="none", show_default=True, help="The accelerator of every --arch."
)
@click.option("--target", "targets", multiple=True, metavar="ARCH[/ACCEL]", help="Both in one; may be given again.")
@click.option("--builder", type=click.Choice(["auto", "direct"]), default="auto", show_default=True)
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
    """
    from arch.target import every_target
    from buildx.build import Options, Workplace, build
    from edgepack.commands.cache import cache_folder
    from packager.package import package
    from packager.project import Project

    wanted = wanted_targets(archs, accel, targets)
    report = TerminalReport()
    with report:
        report.step("checking the model")
        project = Project.open(source)
        # for every target there is, so that an image does not depend on which others were built beside it
        packaged = package(project, every_target())
        options = Options(project.root, _touched(source), output, base, wheels, compression, locked, not no_layer_cache)
        if builder == "auto":
            report.step("builder: direct")
        built = build(packaged.index, wanted, options, Workplace(cache_folder(os.environ), os.environ), report)
    _print(built, packaged, builder, as_json)


def wanted_targets(archs: tuple[str, ...], accel: str, targets: tuple[str, ...]) -> list[Target]:
    """What the options ask for; without any, the plain target of this machine."""
    from arch.target import Target, host_target

    asked = [Target.parse(text) for text in targets] + [Target.parse(f"{arch}/{accel}") for arch in archs]
    return sorted(set(asked)) or [host_target()]


class TerminalReport:
    """Steps on standard error, on one line that is wiped at the end, if that is a terminal; notices always, each
    once.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said: set[str] = set()

    def __enter__(self) -> TerminalReport:
        return self

    def __exit__(self, *_: object) -> None:
        self._wipe()

    def step(self, text: str) -> None:
        """Show what is being done now."""
        if self._is_terminal:
            self._wipe()
            click.echo(f"{text} …", nl=False, err=True)

    def notice(self, text: str) -> None:
        """Say what the user should know."""
        if text not in self._said:
            self._said.add(text)
            self._wipe()
            click.echo(f"warning: {text}", err=True)

    def _wipe(self) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def _touched(source: Path) -> Path:
    """What git is asked about: the folder of an edgepack.toml, or the model file."""
    source = source.absolute()
    return source.parent if source.name == "edgepack.toml" else source


def _print(built: Built, packaged: Packaged, builder: str, as_json: bool) -> None:
    for note in packaged.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        import orjson

        click.echo(orjson.dumps(built.to_dict(packaged.parity)))
        return
    from packager import parity

    click.echo(f"pipeline '{packaged.spec.name}', {len(packaged.checks)} checks passed")
    for line in parity.table(packaged.parity):
        click.echo(f"  {line}")
    for image in built.images:
        size = f"{image.compressed_bytes / 1e6:.1f} MB compressed"
        click.echo(f"image {image.reference}  {image.target.platform}  {size}")
        for layer in image.layers:
            how = "cached" if layer.cached else "made  "
            click.echo(f"  {layer.kind:7} {layer.size_bytes / 1e6:7.1f} MB  {how}  {layer.title}")
        click.echo(f"  {image.image.digest}")
    click.echo(f"created {built.created.text}: {built.created.reason}")
    how = "direct (auto: it needs no daemon)" if builder == "auto" else builder
    click.echo(f"written {built.path}  {built.size_bytes / 1e6:.1f} MB in {built.seconds:.1f} s, builder {how}")
    click.echo(f"digest  {built.digest}")
