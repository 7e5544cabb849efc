"""`edgepack verify`: is this image or bundle whole? Digests, sizes, media types, layers, and what is said about it;
faults are named by digest.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgepack.errors import BadInput, NotTrusted

if TYPE_CHECKING:
    from oci.descriptor import Descriptor
    from oci.source import Source
    from oci.validate import Report


@click.command(short_help="Check an image or bundle: digests, layers, reports.")
@click.argument("what", metavar="TAR|LAYOUT|REF")
@click.option("--plain-http", is_flag=True, help="Speak http to a registry that is not on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(what: str, plain_http: bool, as_json: bool) -> None:
    """Read every byte of an image or bundle, in a file, a layout folder or a registry, and check it; with it what is
    said about it: SBOM, provenance, parity reports.

    Ends with 0 and what was checked, or with 1 and one line for each fault, the damaged blob's digest first.

    \b
    Example:
      edgepack verify dist/wine-line-arm-none.oci.tar
      edgepack verify 127.0.0.1:5000/wine-line:latest --json
    """
    from oci.validate import examine

    start = time.monotonic()
    report = examine(_source(what, plain_http), _progress)
    _clear_line()
    if as_json:
        click.echo(msgspec.json.encode(_as_json(what, report, time.monotonic() - start)))
    else:
        for fault in report.faults:
            click.echo(str(fault))
    if report.faults:
        more = f" and {len(report.faults) - 1} more" if len(report.faults) > 1 else ""
        raise NotTrusted(f"'{what}' is damaged: {report.faults[0]}{more}; build or fetch it again")
    if not as_json:
        click.echo(_summary(what, report, time.monotonic() - start))


def _source(what: str, plain_http: bool) -> Source:
    """A file, a folder or a place in a registry, told apart by what lies there, then by how it is written."""
    from edgepack.commands._credentials import find_credentials
    from oci.layout import Layout
    from oci.reference import Reference
    from oci.registry import Registry
    from oci.tar import Tar

    path = Path(what)
    if path.is_dir():
        return Layout(path)
    if path.is_file():
        return Tar(path)
    if what.endswith(".tar") or what.startswith((".", "/")) or "/" not in what:
        raise BadInput(f"no such file or folder: '{what}': expected a tar, a layout folder or host/repository:tag")
    try:
        reference = Reference.parse(what)
    except BadInput as error:
        raise BadInput(f"no such file or folder, and not in a registry either: {error}") from error
    registry = Registry(reference.host, find_credentials(reference.host, os.environ, plain_http), plain_http)
    click.get_current_context().call_on_close(registry.close)
    return registry.source(reference.repository, reference.pointer)


def _summary(what: str, report: Report, seconds: float) -> str:
    mebibytes = f" ({report.size_bytes / (1 << 20):.1f} MiB)" if report.size_bytes >= 1 << 20 else ""
    said = f" ({report.referrers} of them said about others)" if report.referrers else ""
    unchecked = f"; {report.unchecked_layers} zstd layers not unpacked" if report.unchecked_layers else ""
    return (
        f"'{what}' is whole: {report.images} {_plural('manifest', report.images)}{said}, "
        f"{report.blobs} {_plural('blob', report.blobs)}, {report.size_bytes} bytes{mebibytes} "
        f"checked in {seconds:.1f} s{unchecked}"
    )


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _as_json(what: str, report: Report, seconds: float) -> dict[str, object]:
    return {
        "source": what,
        "whole": not report.faults,
        "manifests": report.images,
        "referrers": report.referrers,
        "blobs": report.blobs,
        "size_bytes": report.size_bytes,
        "unchecked_layers": report.unchecked_layers,
        "seconds": round(seconds, 3),
        "faults": [{"digest": fault.digest, "message": fault.message} for fault in report.faults],
    }


def _progress(descriptor: Descriptor) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[Kchecking {descriptor.digest[:19]} ({descriptor.size} bytes)", err=True, nl=False)


def _clear_line() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
