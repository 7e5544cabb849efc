"""`--push`: the registry as a sink of a build, with the credentials that `docker login` keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from buildx.report import Report
    from oci.descriptor import Descriptor
    from oci.image import Image, Index
    from oci.reference import Reference
    from oci.registry import Registry


@dataclass(frozen=True)
class Push:
    """A place in a registry that a build goes to."""

    registry: Registry
    place: Reference
    mount_from: str | None

    @classmethod
    @contextmanager
    def opened(
        cls,
        text: str | None,
        base: str | None,
        plain_http: bool,
        environ: Mapping[str, str],
        cache: Path,
        report: Report,
    ) -> Iterator[Push | None]:
        """The sink for `--push REF`, or None without one. Raises BadInput before anything is built."""
        if text is None:
            yield None
            return
        from edgepack.commands._credentials import find_credentials
        from oci.reference import Reference
        from oci.registry import Registry

        place = Reference.parse(text)
        if place.digest:
            raise BadInput(f"--push '{text}' names a digest, which follows from the image: give host/repository:tag")

        def progress(descriptor: Descriptor) -> None:
            report.step(f"pushing {descriptor.digest[:19]} ({descriptor.size / 1e6:.1f} MB)")

        auth = find_credentials(place.host, environ, plain_http)
        with Registry(place.host, auth, plain_http, progress=progress) as registry:
            yield cls(registry, place, _repository(base, place.host))

    def write(self, index: Index, reference: str) -> str:
        """Push what is not there yet, and return the digest by which it can be pulled: that of the tar."""
        return self.registry.push_index(self.place.repository, self.place.tag or "latest", index, self.mount_from)

    def attach(self, referrer: Image) -> None:
        """Push what is said about an image, listed under it."""
        self.registry.push_image(self.place.repository, referrer)


def _repository(base: str | None, host: str) -> str | None:
    """The repository of a base in the same registry: its layers are mounted from there."""
    from oci.reference import Reference

    if base is None or Path(base).exists():
        return None
    try:
        found = Reference.parse(base)
    except BadInput:
        return None
    return found.repository if found.host == host else None
