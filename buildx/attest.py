"""What is said about an image beside it: SBOM and provenance, as referrers for registries and as files in the tar.

They name the image's digest and so lie outside it: whoever does not look at them loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from buildx import provenance, sbom
from buildx.ingredients import Ingredients
from buildx.report import Report
from edgepack.errors import BadInput
from oci.blob import BytesBlob
from oci.descriptor import Descriptor
from oci.image import EMPTY_CONFIG, Image

FOLDER = "attestations"


@dataclass(frozen=True)
class Attested:
    """The referrers of one image, and the same documents as files, by their place in a layout."""

    referrers: Sequence[Image] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def attest(image: Image, made_of: Ingredients, report: Report) -> Attested:
    """Write both documents. Without the library for the SBOM there is a notice and provenance alone."""
    documents = {
        f"{FOLDER}/{made_of.file_name}.provenance.json": (
            provenance.MEDIA_TYPE,
            provenance.provenance(image, made_of),
        )
    }
    try:
        documents[f"{FOLDER}/{made_of.file_name}.cdx.json"] = sbom.MEDIA_TYPE, sbom.sbom(image, made_of)
    except BadInput as error:
        report.notice(str(error))
    referrers = [_referrer(image, media_type, data) for media_type, data in documents.values()]
    return Attested(referrers, {path: data for path, (_, data) in documents.items()})


def _referrer(image: Image, media_type: str, data: bytes) -> Image:
    """A document as an artifact whose subject is the image (image-spec, "Guidelines for Artifact Usage")."""
    said = image.manifest.descriptor
    subject = Descriptor(said.media_type, said.digest, said.size)
    return Image(BytesBlob.of(b"{}", EMPTY_CONFIG), (BytesBlob.of(data, media_type),), media_type, subject=subject)
