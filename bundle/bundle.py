"""`Bundle`: a pipeline for one target, as an OCI artifact, and how one is packed.

One manifest a target under one index. The config is the pipeline spec; every model file and the golden rows are one
raw blob each, named by the annotation FILEPATH. Digests depend on nothing but spec, files, golden rows and target. A
parity report is a referrer: an image of its own whose `subject` is a bundle's manifest, so that reporting never
changes what was reported on.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from arch.target import Target
from bundle import media
from bundle.pipeline import PipelineSpec
from bundle.validations import Validation
from columns.schema import Schema
from edgepack.errors import BadInput, NotTrusted
from oci.blob import Blob, BytesBlob, FileBlob
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.image import EMPTY_CONFIG, Image, Index

SPEC_LIMIT = 1 << 20  # bytes: a spec is names and settings; more is not one
_RESERVED = (media.SPEC_FILE, media.GOLDEN_FILE, media.MANIFEST_FILE)
_VERSIONS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgepack:bundle")


def pack(
    spec: PipelineSpec | Mapping[Target, PipelineSpec],
    files: Mapping[str, Path],
    golden: bytes,
    targets: Iterable[Target],
    wheels: Mapping[Target, Mapping[str, Path]] | None = None,
) -> Index:
    """Make the index of a bundle: a manifest a target, sorted, all sharing the same blobs.

    `spec` is one for all targets, or one each where their steps run in different Pythons. `files` maps a path inside
    the bundle to the file on this machine; the index reads them when it is written. `wheels` holds each target's own
    files beside them, named by `pipeline.wheel_path`. Raises BadInput when a step's model is not among them, or a path
    leads out of the bundle.
    """
    wanted = sorted(set(targets))
    if not wanted:
        raise BadInput("a bundle needs at least one target: give --target x86 or --target arm")
    specs = {target: spec if isinstance(spec, PipelineSpec) else spec[target] for target in wanted}
    name = specs[wanted[0]].name
    every = [model for step in specs[wanted[0]].steps for model in (step, *step.every_model)]
    missing = [model.model for model in every if not model_files(model.model, files)]
    if missing:
        raise BadInput(f"model '{missing[0]}' of pipeline '{name}' is not among the bundle's files")
    answers = BytesBlob.of(golden, media.GOLDEN, {media.FILEPATH: media.GOLDEN_FILE})
    blobs = _Blobs()
    images = []
    for target in wanted:
        config = BytesBlob.of(specs[target].encode(), media.PIPELINE)
        own = (wheels or {}).get(target, {})
        check_paths([*files, *own])
        layers = (*blobs.of(files, media.MODEL), answers, *blobs.of(own, media.WHEEL))
        said = {media.NAME: name, media.TARGET: str(target)}
        images.append(Image(config, layers, media.PIPELINE, said))
    return Index(tuple(images), media.PIPELINE, {media.NAME: name})


class _Blobs:
    """Files as blobs; each is read and hashed once, however many targets have it."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Path], Blob] = {}

    def of(self, files: Mapping[str, Path], media_type: str) -> Iterator[Blob]:
        for path in sorted(files):
            key = path, files[path]
            if key not in self._made:
                self._made[key] = FileBlob.of(files[path], media_type, {media.FILEPATH: path})
            yield self._made[key]


def model_files(model: str, paths: Iterable[str]) -> list[str]:
    """Which of a bundle's paths a step's model is: the file itself, or all below the folder of that name; sorted."""
    return sorted(path for path in paths if path == model or path.startswith(f"{model}/"))


def folder_sha256(digests: Mapping[str, str]) -> str:
    """What a step says as `sha256` of a model that is a folder; `digests` are its files' by path inside the folder."""
    lines = (f"{digests[path]} {path}\n".encode() for path in sorted(digests))
    return Digest.of(lines).removeprefix("sha256:")


def attach_parity(image: Image, report: bytes) -> Image:
    """Make the referrer that carries a parity report (JSON) of one manifest of a bundle."""
    described = image.manifest.descriptor
    layer = BytesBlob.of(report, media.PARITY)
    subject = Descriptor(described.media_type, described.digest, described.size)
    return Image(BytesBlob.of(b"{}", EMPTY_CONFIG), (layer,), media.PARITY, subject=subject)


def version_of(index_digest: str) -> str:
    """The version of a bundle that no hub has named: a UUID made of the index's digest."""
    return str(uuid.uuid5(_VERSIONS, Digest.parse(index_digest)))


@dataclass(frozen=True)
class Bundle:
    """One manifest of a bundle, checked: the spec reads, every path stays inside, every step has its model."""

    image: Image
    index_digest: str
    spec: PipelineSpec
    target: Target

    @classmethod
    def from_image(cls, image: Image, index_digest: str) -> Bundle:
        """Take a manifest from outside. Raises NotTrusted when it is not a bundle or contradicts itself."""
        if image.artifact_type != media.PIPELINE or image.config.descriptor.media_type != media.PIPELINE:
            raise NotTrusted(
                f"manifest {image.digest} is not a bundle: its artifact type is "
                f"'{image.artifact_type}', not {media.PIPELINE}"
            )
        try:
            spec = PipelineSpec.decode(read_small(image.config))
            bundle = cls(image, index_digest, spec, Target.read(image.annotations.get(media.TARGET, "")))
            _check_content(bundle)
        except BadInput as error:
            raise NotTrusted(f"bundle {image.digest}: {error}") from error
        return bundle

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.name

    @property
    def digest(self) -> str:
        """The digest of this target's manifest: what an assignment names."""
        return self.image.digest

    @property
    def version(self) -> str:
        """The version, a UUID: the same for all targets of one bundle."""
        return version_of(self.index_digest)

    @cached_property
    def blobs(self) -> dict[str, Blob]:
        """Every file of the bundle by its path inside it: models and golden rows."""
        return {layer.descriptor.annotations.get(media.FILEPATH, ""): layer for layer in self.image.layers}

    @property
    def size_bytes(self) -> int:
        """What all blobs take together."""
        return sum(blob.descriptor.size for blob in self.image.blobs())


def bundles(index: Index) -> list[Bundle]:
    """Every bundle of an index, referrers and images of other kinds left out, in the index's order."""
    found = [image for image in index.images if image.artifact_type == media.PIPELINE and image.subject is None]
    return [Bundle.from_image(image, index.digest) for image in found]


def check_paths(paths: Iterable[str]) -> list[str]:
    """Return paths of model files sorted, or raise BadInput for one that is not safe or not its own on every file
    system.
    """
    checked = sorted(check_path(path) for path in paths)
    folded: dict[str, str] = {}
    for path in checked:
        other = folded.setdefault(path.casefold(), path)
        if other != path or checked.count(path) > 1:
            raise BadInput(f"files '{other}' and '{path}' of a bundle differ at most in case: rename one")
        if path in _RESERVED:
            raise BadInput(f"file '{path}' has a name that the bundle itself uses: rename it")
    for path in checked:
        parent = next((str(up) for up in PurePosixPath(path).parents if str(up).casefold() in folded), None)
        if parent:
            raise BadInput(f"'{parent}' is a file and a folder of the bundle at once: rename one")
    return checked


def check_path(path: str) -> str:
    """Return a path inside a bundle if it is relative, plain and has no way out, else raise BadInput."""
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") for part in parts) and "\\" not in path and path.isprintable()
    if (
        not plain
        or unicodedata.normalize("NFC", path) != path
        or len(path.encode()) > 1000
        or max(map(len, parts)) > 200
    ):
        raise BadInput(f"path '{path[:100]!s}' of a bundle is not a plain relative path inside it")
    return path


def read_small(blob: Blob, limit: int = SPEC_LIMIT) -> bytes:
    """Read a blob that must be small into memory, verified. Raises NotTrusted when it is larger or has another
    digest.
    """
    said = blob.descriptor
    with blob.open() as file:
        data = file.read(limit + 1)
    if len(data) != said.size or len(data) > limit or Digest.of(data) != said.digest:
        raise NotTrusted(
            f"blob {said.digest} is not what its manifest says: expected {said.size} bytes (at most "
            f"{limit}) of that digest"
        )
    return data


def _check_content(bundle: Bundle) -> None:
    """Gather every path and model reference of a manifest and refuse what does not fit together."""
    if bundle.image.annotations.get(media.NAME) != bundle.spec.name:
        raise BadInput(
            f"its annotation names pipeline '{bundle.image.annotations.get(media.NAME)}', its spec '{bundle.spec.name}'"
        )
    named = [layer.descriptor.annotations.get(media.FILEPATH, "") for layer in bundle.image.layers]
    if named.count(media.GOLDEN_FILE) != 1:
        raise BadInput(f"it has {named.count(media.GOLDEN_FILE)} blobs for golden.json, expected one")
    check_paths(path for path in named if path != media.GOLDEN_FILE)
    for step in bundle.spec.steps:
        for model in (step, *step.every_model):
            _check_model(model.name, model.model, model.sha256, bundle)
    inputs, outputs = Schema.parse(bundle.spec.steps[0].input), Schema.parse(bundle.spec.steps[-1].output)
    for name, expression in bundle.spec.validations.items():
        Validation.compile(name, expression, inputs, outputs)


def _check_model(step: str, model: str, sha256: str, bundle: Bundle) -> None:
    paths = model_files(model, bundle.blobs)
    if not paths or model == media.GOLDEN_FILE:
        raise BadInput(f"step '{step}' names model '{model}', which is not among the files")
    digests = {path: str(bundle.blobs[path].descriptor.digest) for path in paths}
    found = digests.get(model) or f"sha256:{folder_sha256(_below(model, digests))}"
    if sha256 and found != f"sha256:{sha256}":
        raise BadInput(f"step '{step}' names model '{model}' with sha256 {sha256}, the manifest has {found}")


def _below(folder: str, digests: Mapping[str, str]) -> dict[str, str]:
    return {path.removeprefix(f"{folder}/"): digest for path, digest in digests.items()}
