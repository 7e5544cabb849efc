"""How an image was made: an in-toto statement with a SLSA v1 provenance, not signed.

It names what the bytes follow from: the pipeline, the target, the locked packages. No machine, no user, no address and
no time of the build are in it, so two machines that build the same write the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from buildx.ingredients import Ingredients
from buildx.layer_cache import RECIPE
from edgepack import __version__
from oci.digest import Digest
from oci.image import Image

MEDIA_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "urn:edgepack:build:v1"


def provenance(image: Image, made_of: Ingredients) -> bytes:
    """Write the statement as JSON (SLSA 1.0, "Provenance"; in-toto attestation framework, "Statement")."""
    bundle, wheels = made_of.bundle, made_of.wheels
    inside = {"compression": made_of.compression, "python": wheels.python, "requirements": wheels.requirements}
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": bundle.name, "digest": _digest(image.digest)}],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"pipeline": bundle.name, "target": str(bundle.target)},
                "internalParameters": {**inside, "recipe": RECIPE, "created": made_of.created.text},
                "resolvedDependencies": list(_materials(made_of)),
            },
            "runDetails": {
                "builder": {"id": f"urn:edgepack:builder:{made_of.builder}", "version": {"edgepack": __version__}},
                "metadata": {},
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(statement), indent=1)


def _materials(made_of: Ingredients) -> Iterator[dict[str, Any]]:
    bundle = made_of.bundle
    yield {"name": f"bundle {bundle.name} for {bundle.target}", "digest": _digest(bundle.digest)}
    if made_of.created.revision:
        yield {"name": "source", "digest": {"gitCommit": made_of.created.revision}}
    if made_of.given:
        yield {"name": made_of.given.name, "digest": _digest(made_of.given.digest)}
    for package in made_of.base.packages if made_of.base else ():
        address = f"pkg:deb/debian/{package.name}@{package.version}?arch={made_of.traits.debian_arch}"
        yield {"uri": address, "digest": {"sha256": package.sha256}}
    for wheel in made_of.wheels.wheels:
        yield {"uri": f"pkg:pypi/{wheel.name}@{wheel.version}", "digest": {"sha256": wheel.sha256}}


def _digest(digest: str) -> dict[str, str]:
    return {"sha256": Digest.parse(digest).hex}
