"""What `edgepack build` says and writes when the images are there: files that start them, one JSON object, or lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from buildx.emit import Service
    from buildx.outcome import Built, BuiltImage
    from bundle.pipeline import PipelineSpec
    from packager.package import Packaged


def emit(built: Built, spec: PipelineSpec, formats: Sequence[str], *, is_loaded: bool, is_pushed: bool) -> list[Path]:
    """Write a file for each format and image beside the image's; returns where."""
    from buildx.emit import FORMATS
    from durable.files import write_atomically

    folder, written = built.path.parent if built.path else Path("dist"), []
    for image in built.images if formats else ():
        service = _service(built, image, spec, is_loaded=is_loaded, pulled=is_pushed)
        for name in dict.fromkeys(formats):
            suffix, write = FORMATS[name]
            path = folder / f"{spec.name}-{image.target.arch}-{image.target.accel}{suffix}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, write(service).encode())
            except OSError as error:
                raise BadInput(
                    f"'{path}' cannot be written: {error.strerror or error}; choose a place with -o"
                ) from error
            written.append(path)
    return written


def show(
    built: Built,
    packaged: Packaged,
    files: Sequence[Path],
    *,
    is_auto: bool,
    is_loaded: bool,
    is_pushed: bool,
    as_json: bool,
) -> None:
    """Print the outcome."""
    for note in packaged.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        import orjson

        said: dict[str, Any] = built.to_dict(packaged.parity)
        click.echo(orjson.dumps({**said, "emitted": [str(path) for path in files]} if files else said))
        return
    _summary(built, packaged)
    how = "direct (auto: it needs no daemon)" if is_auto else built.builder
    if built.path and built.size_bytes:
        click.echo(f"written {built.path}  {built.size_bytes / 1e6:.1f} MB in {built.seconds:.1f} s, builder {how}")
    else:
        click.echo(f"built   in {built.seconds:.1f} s, builder {how}; no file, because none was asked for with -o")
    if is_pushed:
        click.echo(f"pushed  {built.reference}")
    if is_loaded:
        click.echo(f"loaded  {', '.join(image.reference for image in built.images)}")
    for path in files:
        click.echo(f"written {path}")
    click.echo(f"digest  {built.digest}")
    _run_lines(built, packaged.spec, is_loaded=is_loaded, is_pushed=is_pushed)


def _summary(built: Built, packaged: Packaged) -> None:
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


def _run_lines(built: Built, spec: PipelineSpec, *, is_loaded: bool, is_pushed: bool) -> None:
    from buildx.emit import run_lines

    for image in built.images:
        service = _service(built, image, spec, is_loaded=is_loaded, pulled=is_pushed)
        click.echo(f"run it on {image.target}:")
        for line in run_lines(service, None if is_loaded else built.path):
            click.echo(f"  {line}")


def _service(built: Built, image: BuiltImage, spec: PipelineSpec, *, is_loaded: bool, pulled: bool) -> Service:
    from buildx.emit import service_of
    from oci.reference import Reference

    if pulled:  # by digest: a tag may move
        place = Reference.parse(built.reference)
        name = f"{place.host}/{place.repository}@{built.digest}"
    else:  # of several images in one file an engine takes its own platform's, under the name of the whole
        name = image.reference if is_loaded or len(built.images) == 1 else built.reference
    return service_of(image.image, spec, image.target, image.flags, name, pulled=pulled)
