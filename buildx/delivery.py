"""Where finished images go: a file, registries, an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from buildx.engine import Engine
from buildx.outcome import BuiltImage
from buildx.report import Report
from edgepack.errors import BadInput
from oci.image import Image, Index
from oci.tar import write_tar


class Sink(Protocol):
    """A place beside the file that takes a whole index, under its name: a registry."""

    def write(self, index: Index, reference: str) -> str:
        """Write it and return the digest by which it is found there."""

    def attach(self, referrer: Image) -> None:
        """Write what is said about an image of it."""


def write_file(index: Index, output: Path, reference: str, images: Iterable[BuiltImage]) -> None:
    """Write all images, and what is said about them, as one tar. Raises BadInput where it cannot be written."""
    attested = [each.attested for each in images]
    files = {path: data for each in attested for path, data in each.files.items()}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_tar(index, output, reference, referrers=[one for each in attested for one in each.referrers], files=files)
    except OSError as error:
        raise BadInput(
            f"'{output}' cannot be written: {error.strerror or error}; choose another place with -o"
        ) from error


def deliver(
    index: Index,
    reference: str,
    images: Sequence[BuiltImage],
    sinks: Iterable[Sink],
    engine: Engine | None,
    report: Report,
) -> None:
    """Give the index with all that is said about it to each sink, and each image under its own name to an engine."""
    for sink in sinks:
        sink.write(index, reference)
        for referrer in (referrer for each in images for referrer in each.attested.referrers):
            sink.attach(referrer)
    if engine:
        for each in images:
            report.step(f"loading {each.reference}")
            engine.load(each.image, each.reference)
