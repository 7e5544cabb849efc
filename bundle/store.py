"""Bundles on disk: unpacked folders that are whole or not there, and reading them.

A folder is named by the hexadecimal digits of its manifest's digest and holds `manifest.json`, `pipeline.json`,
`golden.json` and the model files at their paths, all read-only. Manifest and digests make a folder verifiable without
anything else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import msgspec

from arch.target import Target
from bundle import media
from bundle.bundle import Bundle, check_path, model_files
from bundle.golden import GoldenRows
from bundle.pipeline import PipelineSpec, wheel_path
from columns.schema import Schema
from durable.files import make_folder, publish
from edgepack.errors import BadInput
from oci.blob import Blob, FileBlob, chunks, verified
from oci.digest import Digest
from oci.image import ManifestDocument

READ_ONLY = 0o444


def unpack(bundle: Bundle, folder: Path, *, link: bool = False) -> Path:
    """Write a bundle to `folder`/<digest> and return that path; it appears whole or not at all, also across a power
    cut.

    Every blob's digest and size are verified on the way. A whole folder that is already there is kept. With `link`,
    blobs in files are hard-linked where the file system allows it: only for a store whose blobs are never written
    again. Raises NotTrusted, naming the blob, when one is not what the manifest says.
    """
    final = folder / Digest.parse(bundle.digest).hex
    if final.is_dir():
        if not faults(final):
            return final
        shutil.rmtree(final)
    make_folder(folder)
    stage = folder / f".{final.name}.part"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        for path, blob in _contents(bundle):
            _place(blob, stage / path, link)
        publish(stage, final)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return final


def faults(folder: Path) -> list[str]:
    """Verify an unpacked bundle against its manifest and its own name; returns what is wrong, a line each."""
    try:
        data = (folder / media.MANIFEST_FILE).read_bytes()
        if Digest.of(data).hex != folder.name:
            return [f"'{media.MANIFEST_FILE}' does not have the digest sha256:{folder.name}"]
        document = msgspec.json.decode(data, type=ManifestDocument)
    except (OSError, msgspec.MsgspecError) as error:
        return [f"'{media.MANIFEST_FILE}' does not read: {error}"]
    expected = {media.SPEC_FILE: document.config.digest}
    expected.update((layer.annotations.get(media.FILEPATH, ""), layer.digest) for layer in document.layers)
    return [
        f"'{path}' does not have the digest {digest}"
        for path, digest in expected.items()
        if not _has_digest(folder / path, digest)
    ]


class OpenBundle:
    """An unpacked bundle: its spec, its files, its golden rows. Reading does not verify; `unpack` and `faults` do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.spec = PipelineSpec.decode((folder / media.SPEC_FILE).read_bytes())
        except OSError as error:
            raise BadInput(f"'{folder}' is not an unpacked bundle: {media.SPEC_FILE} does not read") from error

    @property
    def target(self) -> Target:
        """What the bundle was made for."""
        return Target.read(self._manifest.annotations.get(media.TARGET, ""))

    @property
    def input(self) -> Schema:
        """What the first step takes."""
        return Schema.parse(self.spec.steps[0].input)

    @property
    def output(self) -> Schema:
        """What the last step gives."""
        return Schema.parse(self.spec.steps[-1].output)

    def file(self, path: str) -> Path:
        """Where a file of the bundle lies. Raises BadInput for a path that leads out or to nothing."""
        found = self.folder / check_path(path)
        if found.is_symlink() or not found.is_file():
            raise BadInput(f"bundle '{self.spec.name}' has no file '{path}'")
        return found

    def model(self, path: str) -> Path:
        """Where a step's model lies: a file, or a folder of files. Raises BadInput as `file` does."""
        found = self.folder / check_path(path)
        return found if found.is_dir() and not found.is_symlink() else self.file(path)

    def paths(self, model: str) -> list[str]:
        """The files of a step's model, by their path in the bundle."""
        return model_files(model, (layer.annotations.get(media.FILEPATH, "") for layer in self._manifest.layers))

    def wheels(self, step: str) -> dict[Path, str]:
        """The wheels of a step, sorted, with the digests that the manifest has of them."""
        layers = self._manifest.layers
        digests = {layer.annotations.get(media.FILEPATH, ""): str(layer.digest) for layer in layers}
        start = wheel_path(step, "")
        return {self.file(path): digests[path] for path in sorted(digests) if path.startswith(start)}

    @cached_property
    def _manifest(self) -> ManifestDocument:
        try:
            return msgspec.json.decode(self.file(media.MANIFEST_FILE).read_bytes(), type=ManifestDocument)
        except msgspec.MsgspecError as error:
            raise BadInput(f"'{self.folder}' is not an unpacked bundle: {media.MANIFEST_FILE} does not read") from error

    def golden(self) -> GoldenRows:
        """The golden rows, with their answers."""
        return GoldenRows.decode(self.file(media.GOLDEN_FILE).read_bytes(), self.input, self.output)


def _contents(bundle: Bundle) -> Iterator[tuple[str, Blob]]:
    """Every file of an unpacked bundle; the manifest last, as it vouches for the others."""
    yield from bundle.blobs.items()
    yield media.SPEC_FILE, bundle.image.config
    yield media.MANIFEST_FILE, bundle.image.manifest


def _place(blob: Blob, path: Path, link: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if link and isinstance(blob, FileBlob) and _linked(blob, path):
        return
    with path.open("xb") as file:
        file.writelines(verified(blob))
    path.chmod(READ_ONLY)


def _linked(blob: FileBlob, path: Path) -> bool:
    """Verify a blob's file and give it a second name. False where the file system cannot; the blob is copied then."""
    for _ in verified(blob):
        pass
    try:
        os.link(blob.path, path)
    except OSError:
        return False
    return True


def _has_digest(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            return not path.is_symlink() and Digest.of(chunks(file)) == digest
    except OSError:
        return False
