"""`edgepack build`: from a model file or a project to OCI images, one for each target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepack.commands._source import SOURCE


@click.command()
@click.argument("source", type=SOURCE, default=Path())
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
def command(**options: Any) -> None:
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
    from edgepack.commands._build_run import Asked, run_build

    run_build(Asked(**options))
