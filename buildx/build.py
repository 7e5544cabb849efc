"""`build`: from a bundle to a file that `docker load`, skopeo and containerd take. A table of contents.

    choice → for each target: lock, base, wheels, agent, bundle, image (`image_build.py`) → delivery

The direct builder: no daemon, no emulation, nothing of the target executed. What follows from what stands in
`layers.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from arch.target import Target
from buildx.choice import bundles_for, file_name, index_for
from buildx.created import created_for
from buildx.delivery import Sink, deliver, write_file
from buildx.docker_build import DockerBuild
from buildx.engine import Engine
from buildx.image_build import ImageBuilds
from buildx.layer_cache import LayerCache, scratch_folder
from buildx.options import Options, Workplace
from buildx.outcome import Built
from buildx.report import Report
from edgepack.errors import BadInput
from oci.image import Index


def build(
    index: Index,
    targets: Iterable[Target],
    options: Options,
    workplace: Workplace,
    report: Report,
    sinks: Iterable[Sink] = (),
    engine: Engine | None = None,
) -> Built:
    """Build the images of a bundle for some targets into one file; give it to further sinks, and each image under its
    own name to an engine.

    Raises BadInput for what the user can mend (no mirror, no such base, no wheel), NotTrusted for wrong digests,
    Unreachable when mirror or index are away, BuildFailed for the rest. Nothing is left behind half-written.
    """
    started = time.monotonic()
    chosen = bundles_for(index, targets)
    output = options.output or (Path("dist") / file_name(chosen) if options.keep_file else None)
    created = created_for(options.source, workplace.environ)
    with (
        LayerCache.opened(workplace.cache, keep=options.layer_cache) as cache,
        _docker(options, workplace, report) as docker,
    ):
        builds = ImageBuilds(options, workplace, report, cache, created, docker)
        images = tuple(builds.image(bundle, index_for(index, bundle.target)) for bundle in chosen)
        whole = Index(tuple(each.image for each in images))
        reference = options.reference or (images[0].reference if len(images) == 1 else f"{chosen[0].name}:latest")
        if output:
            report.step("writing the file")
            write_file(whole, output, reference, images)
        deliver(whole, reference, images, sinks, engine, report)
    seconds, size = time.monotonic() - started, output.stat().st_size if output else None
    digest = whole.entry.descriptor.digest
    return Built(reference, digest, images, output, size, seconds, created, options.builder)


@contextlib.contextmanager
def _docker(options: Options, workplace: Workplace, report: Report) -> Iterator[DockerBuild | None]:
    """The second builder, where it is asked for, with a folder of its own for as long as its images are read."""
    if options.builder != "buildx":
        yield None
        return
    if options.compression != options.layer_compression:
        raise BadInput(
            f"--compression {options.compression} is the direct builder's: docker packs layers in its own way; "
            "leave it out, or use --builder direct"
        )
    with scratch_folder(workplace.cache) as scratch:
        yield DockerBuild.find(workplace.environ, scratch, report, shown=workplace.terminal)
