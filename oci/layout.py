"""An OCI layout folder (image-spec, "Image Layout"): `oci-layout`, `index.json` and `blobs/sha256/<hex>`.

A blob is checked while it is written and visible only when it is whole; the index.json is written last, so a
power cut leaves the old content or the new one. Who may write at the same time is the caller's affair: one
process owns a folder.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from durable.files import make_folder, write_atomically
from edgepack.errors import BadInput, BuildFailed, NotTrusted
from oci.blob import Blob, FileBlob, chunks, verified
from oci.descriptor import Descriptor
from oci.digest import Digest, is_digest
from oci.image import IMAGE_MANIFEST, Image, Index, parse_index
from oci.source import MANIFEST_LIMIT, UNKNOWN_TYPE, find_referrers, index_json, read_image, read_index

MARKER = b'{"imageLayoutVersion":"1.0.0"}'


class Layout:
    """A layout folder. Reading needs no more than the folder; `Layout.create` makes an empty one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Layout:
        """Make the folder a layout; one that is there already stays as it is."""
        make_folder(folder / "blobs" / "sha256")
        if not (folder / "oci-layout").exists():
            write_atomically(folder / "oci-layout", MARKER)
        return cls(folder)

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def index(self, ref_name: str | None = None) -> Index:
        """Read what the layout holds: all, or the entry whose ref name (a tag) is given.

        Raises BadInput if the folder is not a layout, NotTrusted if a document is missing or damaged.
        """
        return read_index(self, ref_name)

    def image(self, digest: str) -> Image:
        """Read one image by the digest of its manifest, also where no index.json names it."""
        return read_image(self, self._known(digest, IMAGE_MANIFEST))

    def blob(self, digest: str, media_type: str = UNKNOWN_TYPE) -> FileBlob:
        """One blob; its descriptor has the size of the file and the media type given here.

        Raises NotTrusted if it is missing.
        """
        return FileBlob(self.path(digest), self._known(digest, media_type))

    def has(self, digest: str) -> bool:
        """Whether the blob is there; its bytes are not read."""
        return self.path(digest).is_file()

    def path(self, digest: str) -> Path:
        """Where the blob lies or will lie.

        Raises NotTrusted if the digest is none, so no text from outside names a path.
        """
        return self.folder / "blobs" / "sha256" / Digest.parse(digest).hex

    def top(self) -> list[Descriptor]:
        """What the index.json names."""
        if not (self.folder / "oci-layout").is_file():
            raise BadInput(f"'{self.folder}' is not an OCI layout: it has no file 'oci-layout'")
        path = self.folder / "index.json"
        if not path.is_file():
            raise BadInput(f"'{self.folder}' is not a whole OCI layout: it has no file 'index.json'")
        if path.stat().st_size > MANIFEST_LIMIT:
            raise NotTrusted(f"'{path}' is larger than {MANIFEST_LIMIT} bytes: refused")
        return parse_index(path.read_bytes(), f"'{path}'").manifests

    def find(self, descriptor: Descriptor) -> Blob | None:
        """The blob as the descriptor names it, or None if it is missing."""
        path = self.path(descriptor.digest)
        return FileBlob(path, descriptor) if path.is_file() else None

    def held(self) -> list[Descriptor]:
        """Every blob of the folder, of unknown type; what is still being written is none."""
        files = sorted((self.folder / "blobs" / "sha256").glob("?" * 64))
        return [self._known(f"sha256:{path.name}", UNKNOWN_TYPE) for path in files if is_digest(f"sha256:{path.name}")]

    def referrers(self, digests: Collection[str]) -> list[Descriptor]:
        """The manifests among the blobs that have one of these as their subject."""
        return find_referrers(self, self.held(), digests)

    def add(self, blob: Blob) -> FileBlob:
        """Write one blob, checked on the way. One that is there is kept if its bytes are right, else written
        anew.

        Raises NotTrusted, and leaves nothing behind, if the bytes are not those of the descriptor.
        """
        path = self.path(blob.descriptor.digest)
        if not _holds(path, blob.descriptor):
            write_atomically(path, verified(blob))
        return FileBlob(path, blob.descriptor)

    def _known(self, digest: str, media_type: str) -> Descriptor:
        path = self.path(digest)
        if not path.is_file():
            raise NotTrusted(f"layout '{self.folder}' lacks the blob {digest}")
        return Descriptor(media_type, digest, path.stat().st_size)


def write_layout(index: Index, folder: Path, ref_name: str | None = None) -> Layout:
    """Write an index into a folder and make its index.json name exactly this. Blobs that are there already
    stay.

    `ref_name` (`name:tag`) becomes the annotations by which skopeo, umoci and containerd find it.
    Raises BadInput for a folder that holds other things than a layout, NotTrusted if a blob's bytes are not those of
    its descriptor, BuildFailed if the disk does not take them; the index.json is then the old one.
    """
    check_folder(folder)
    try:
        layout = Layout.create(folder)
        for blob in index.blobs():
            layout.add(blob)
        write_atomically(folder / "index.json", index_json(index, ref_name))
    except OSError as error:
        raise BuildFailed(f"layout '{folder}' could not be written: {error.strerror}") from error
    return layout


def check_folder(folder: Path) -> None:
    """Raise BadInput unless a layout may be written there: it is not strewn into a folder of other things."""
    if folder.is_dir() and not (folder / "oci-layout").is_file() and any(folder.iterdir()):
        raise BadInput(f"folder '{folder}' is not empty and holds no layout: name another one")


def _holds(path: Path, descriptor: Descriptor) -> bool:
    """Whether a file has the bytes of a descriptor: reading is cheaper than writing, and a damaged blob is
    noticed.
    """
    if not path.is_file() or path.stat().st_size != descriptor.size:
        return False
    with path.open("rb") as file:
        return Digest.of(chunks(file)) == descriptor.digest
