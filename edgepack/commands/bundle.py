"""`edgepack bundle`: from a model file or a project to a proven bundle, as an OCI layout tar or folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands._source import SOURCE, opened_project

if TYPE_CHECKING:
    from packager.package import Packaged


@click.command()
@click.argument("source", type=SOURCE, default=Path())
@click.option(
    "--target", "targets", multiple=True, metavar="ARCH[/ACCEL]", help="x86 or arm; may be given again. Default: both."
)
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path),
    help="A .tar file or a folder. Default: dist/<pipeline>.bundle.oci.tar.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    help="A folder of wheels that win over the index, and suffice without one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, targets: tuple[str, ...], output: Path | None, wheels: Path | None, as_json: bool) -> None:
    """Package a model into a bundle: checked, compared with the original's answers, content-addressed.

    SOURCE is a model file, or a folder with an edgepack.toml. The same source gives the same bytes, anywhere and at
    any time.

    \b
    Example:
      edgepack bundle examples/wine-line
      edgepack bundle model.onnx --target arm -o model.oci.tar
    """
    from arch.catalog import Catalog
    from arch.target import plain_targets
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from edgepack.commands.targets import target_folders
    from oci.layout import check_folder
    from oci.tar import check_place
    from packager.checks import Checklist
    from packager.package import package
    from packager.wheels import Told, WheelSource

    if output is not None:
        (check_place if output.suffix == ".tar" else check_folder)(output)
    catalog = Catalog.read(target_folders(source), os.environ)
    wanted = [catalog.parse(text) for text in targets] or list(plain_targets())
    try:
        checklist, cache = Checklist(progress=_progress.show, notice=_progress.notice), cache_folder(os.environ)
        local = WheelSource(wheels, report=Told(checklist.progress, checklist.notice))
        project = opened_project(source)
        packaged = package(project, wanted, checklist=checklist, cache=cache, wheels=local, catalog=catalog)
    finally:
        _progress.clear()
    path = output or Path("dist") / f"{packaged.spec.name}.bundle.oci.tar"
    write(packaged, path)
    for note in packaged.notes:
        click.echo(f"note: {note}", err=True)
    _print(packaged, path, as_json)


def write(packaged: Packaged, path: Path) -> None:
    """Write a bundle: a tar where the name ends in .tar, else a layout folder. Raises BadInput where that cannot be."""
    from edgepack.errors import BadInput
    from oci.layout import write_layout
    from oci.tar import write_tar

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tar":
            write_tar(packaged.index, path)
        else:
            write_layout(packaged.index, path)
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written: {error.strerror}; choose another place with -o") from error


def report(packaged: Packaged, path: Path) -> dict[str, Any]:
    """The object that `--json` prints."""
    from bundle.bundle import bundles, version_of

    return {
        "pipeline": packaged.spec.name,
        "digest": packaged.index.digest,
        "version": version_of(packaged.index.digest),
        "path": str(path),
        "targets": [
            {"target": str(each.target), "digest": each.digest, "size_bytes": each.size_bytes}
            for each in bundles(packaged.index)
        ],
        "parity": packaged.parity,
        "notes": list(packaged.notes),
    }


def _print(packaged: Packaged, path: Path, as_json: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps(report(packaged, path)))
        return
    from packager import parity

    found = report(packaged, path)
    click.echo(f"bundle of pipeline '{found['pipeline']}', {len(packaged.checks)} checks passed")
    for line in parity.table(packaged.parity):
        click.echo(f"  {line}")
    for each in found["targets"]:
        click.echo(f"  {each['target']:18} {each['digest']}  {each['size_bytes']} bytes")
    click.echo(f"  {'index':18} {found['digest']}")
    click.echo(f"  {'written':18} {path}")
