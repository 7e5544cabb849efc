"""The bill of materials of an image, in CycloneDX 1.6: Debian packages, wheels, the agent and the models, by digest.

It says what the lock says, so it needs nothing unpacked. Of a base of the user's own it names the image alone: what is
in there is that image's own bill. Number and time follow from the image, so the same image has the same bill.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from buildx.ingredients import Ingredients
from bundle import media
from edgepack import __version__
from edgepack.errors import BadInput
from oci.digest import Digest
from oci.image import Image

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgepack:sbom")


def sbom(image: Image, made_of: Ingredients) -> bytes:
    """Write the bill as JSON. Raises BadInput without cyclonedx-python-lib."""
    try:
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise BadInput("an SBOM needs cyclonedx-python-lib: pip install 'edgepack[packager]'") from error
    bundle = made_of.bundle
    whole = Component(
        name=bundle.name,
        version=bundle.version,
        type=ComponentType.CONTAINER,
        bom_ref=str(image.digest),
        hashes=[_sha256(image.digest)],
    )
    bill = Bom(
        serial_number=uuid.uuid5(_SERIALS, str(image.digest)),
        metadata=BomMetaData(component=whole, timestamp=made_of.created.time),
        components=list(_components(made_of)),
    )
    bill.register_dependency(whole, bill.components)
    return JsonV1Dot6(bill).output_as_string(indent=1).encode()


def _components(made_of: Ingredients) -> Iterator[Any]:
    from cyclonedx.model.component import ComponentType

    arch, python = made_of.traits.debian_arch, made_of.wheels.python
    for package in made_of.base.packages if made_of.base else ():
        where = {"arch": arch, "distro": made_of.base.release if made_of.base else ""}
        yield _component("deb", "debian", package.name, package.version, package.sha256, where)
    if made_of.given:
        digest = Digest.parse(made_of.given.digest).hex
        yield _component("oci", None, made_of.given.name, made_of.given.digest, digest, {}, ComponentType.CONTAINER)
    for wheel in made_of.wheels.wheels:
        where = {"file_name": wheel.filename, "python": python}
        yield _component("pypi", None, wheel.name, wheel.version, wheel.sha256, where)
    yield _component("generic", None, "edgepack-agent", __version__, None, {}, ComponentType.APPLICATION)
    for path, blob in sorted(made_of.bundle.blobs.items()):
        said = blob.descriptor
        if said.media_type == media.MODEL:
            kind = ComponentType.MACHINE_LEARNING_MODEL
            yield _component("generic", None, path, made_of.bundle.version, Digest.parse(said.digest).hex, {}, kind)
        elif said.media_type == media.WHEEL:
            name, _, rest = path.rpartition("/")[2].partition("-")
            version = rest.partition("-")[0] or "unknown"
            yield _component("pypi", None, name, version, Digest.parse(said.digest).hex, {"file_name": path})


def _component(
    kind: str,
    namespace: str | None,
    name: str,
    version: str,
    sha256: str | None,
    qualifiers: dict[str, str],
    component: Any = None,
) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    address = PackageURL(kind, namespace, name, version, qualifiers)
    return Component(
        name=name,
        version=version,
        type=component or ComponentType.LIBRARY,
        bom_ref=address.to_string(),
        purl=address,
        hashes=[_sha256(sha256)] if sha256 else [],
    )


def _sha256(digest: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))
