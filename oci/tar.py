"""An OCI layout in one uncompressed tar, which `docker load` takes too.

For exactly one image the tar also holds docker's `manifest.json`, pointing into `blobs/sha256/`: engines older than 25
read that and leave the layers compressed. The same index gives the same bytes: documents first, then blobs sorted, no
times, owners or umask; and a file that was cut short can still say what is missing. The documents' own digests stand in
`documents.sha256`, so that no byte of the file can change unnoticed.
Reading is random access: blobs are slices of the file, nothing is extracted.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from durable.files import make_folder, write_atomically
from edgepack.errors import BadInput, BuildFailed, NotTrusted
from oci._tar_frame import BLOB, SUMS, frame_faults, sums
from oci._tar_members import BLOCK, Member, members
from oci.blob import Blob, SliceBlob, verified
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.image import IMAGE_CONFIG, Image, Index, parse_index
from oci.layout import MARKER
from oci.source import MANIFEST_LIMIT, UNKNOWN_TYPE, find_referrers, index_json, read_image, read_index, tag_of

_RECORD = 20 * BLOCK  # tar ends on a whole record


class Tar:
    """A tar that holds an OCI layout. Its headers are walked once, when it is opened.

    Raises BadInput if the file is missing, not an uncompressed tar, or hostile (links, names that leave it,
    names twice).
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BadInput(f"no such file: '{path}'")
        self.path = path
        self._members = members(path)

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    def index(self, ref_name: str | None = None) -> Index:
        """Read what the tar holds: all, or the entry whose ref name (a tag) is given."""
        return read_index(self, ref_name)

    def image(self, digest: str) -> Image:
        """Read one image by the digest of its manifest."""
        for image in self.index().images:
            if image.digest == digest:
                return read_image(self, image.manifest.descriptor)
        raise BadInput(f"tar '{self.path}' holds no image {digest}")

    def has(self, digest: str) -> bool:
        """Whether a blob is there; its bytes are not read."""
        return self._member(digest) is not None

    def top(self) -> list[Descriptor]:
        """What the index.json names."""
        if "oci-layout" not in self._members or "index.json" not in self._members:
            raise BadInput(f"'{self.path}' is a tar, but not of an OCI layout: expected 'oci-layout' and 'index.json'")
        member = self._members["index.json"]
        if member.size > MANIFEST_LIMIT:
            raise NotTrusted(f"the index.json of '{self.path}' is larger than {MANIFEST_LIMIT} bytes: refused")
        with SliceBlob(self.path, member.offset, member.size, Descriptor("", "", 0)).open() as file:
            return parse_index(file.read(), f"the index.json of '{self.path}'").manifests

    def find(self, descriptor: Descriptor) -> Blob | None:
        """The blob as the descriptor names it, or None if it is missing."""
        member = self._member(descriptor.digest)
        return SliceBlob(self.path, member.offset, member.size, descriptor) if member else None

    def held(self) -> list[Descriptor]:
        """Every blob of the tar, of unknown type."""
        return [
            Descriptor(UNKNOWN_TYPE, f"sha256:{match[1]}", member.size)
            for name, member in self._members.items()
            if (match := BLOB.fullmatch(name))
        ]

    def referrers(self, digests: Collection[str]) -> list[Descriptor]:
        """The manifests among the blobs that have one of these as their subject."""
        return find_referrers(self, self.held(), digests)

    def frame_faults(self) -> list[tuple[str, str]]:
        """What is wrong outside of the blobs: a document or place, and the fault."""
        return list(frame_faults(self.path, self._members))

    def _member(self, digest: str) -> Member | None:
        return self._members.get(f"blobs/sha256/{Digest.parse(digest).hex}")


def read_tar(path: Path, ref_name: str | None = None) -> Index:
    """Read the index that a tar holds; its blobs are slices of the file.

    Errors as for `Tar`; NotTrusted if a document is damaged.
    """
    return Tar(path).index(ref_name)


def check_place(path: Path) -> None:
    """Refuse a place for a tar where something else lies: a slip in a name shall not cost a model.

    Raises BadInput for a folder, a device, and a file that is neither empty nor a tar.
    """
    try:
        if not path.exists():
            return
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(BLOCK)
            if not head or head[257:262] == b"ustar":
                return
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written: {error.strerror}; choose another place with -o") from error
    raise BadInput(f"'{path}' is there already and is no tar: choose another name with -o, or remove it first")


def write_tar(
    index: Index,
    path: Path,
    ref_name: str | None = None,
    *,
    referrers: Sequence[Image] = (),
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write an index as one file, streamed, visible only when it is whole and on disk.

    `ref_name` (`name:tag`) is what `docker load` and skopeo will call it. `referrers` lie in it as blobs that its
    index.json does not name: tools that expect one image there find one. `files` lie beside the layout's own.
    Raises NotTrusted if a blob's bytes are not those of its descriptor, BuildFailed if the disk does not take them;
    what was there before then stays.
    """
    try:
        make_folder(path.parent)
        write_atomically(path, tar_bytes(index, ref_name, referrers=referrers, files=files))
    except OSError as error:
        raise BuildFailed(f"'{path}' could not be written: {error.strerror}") from error


def tar_bytes(
    index: Index,
    ref_name: str | None = None,
    *,
    referrers: Sequence[Image] = (),
    files: Mapping[str, bytes] | None = None,
) -> Iterator[bytes]:
    """The tar in pieces, for whoever takes it without a file, such as a docker daemon."""
    documents = {"oci-layout": MARKER, "index.json": index_json(index, ref_name)}
    if len(index.images) == 1 and index.images[0].config.descriptor.media_type == IMAGE_CONFIG:
        documents["manifest.json"] = _docker_manifest(index.images[0], ref_name)
    documents.update(sorted((files or {}).items()))
    documents[SUMS] = sums(documents)
    said = [blob for image in referrers for blob in (*image.blobs(), image.manifest)]
    written = 0
    for piece in _pieces(documents, {_place(blob): blob for blob in (*index.blobs(), *said)}):
        written += len(piece)
        yield piece
    end = written + 2 * BLOCK
    yield bytes(2 * BLOCK + -end % _RECORD)


def _pieces(documents: dict[str, bytes], blobs: dict[str, Blob]) -> Iterator[bytes]:
    for name, data in documents.items():
        yield _header(name, len(data), tarfile.REGTYPE) + data + bytes(-len(data) % BLOCK)
    yield _header("blobs/", 0, tarfile.DIRTYPE)
    yield _header("blobs/sha256/", 0, tarfile.DIRTYPE)
    for name, blob in sorted(blobs.items()):
        size = blob.descriptor.size
        yield _header(name, size, tarfile.REGTYPE)
        yield from verified(blob)
        yield bytes(-size % BLOCK)


def _header(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.mtime = size, kind, 0
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    # GNU rather than ustar: a blob may be larger than 8 GiB, and only then do the two differ in more than the
    # magic
    return member.tobuf(tarfile.GNU_FORMAT)


def _docker_manifest(image: Image, ref_name: str | None) -> bytes:
    """docker's own list of images in a tar, as `docker save` writes it."""
    name = f"{ref_name.removesuffix(':' + tag_of(ref_name))}:{tag_of(ref_name)}" if ref_name else None
    return msgspec.json.encode(
        [
            {
                "Config": _place(image.config),
                "RepoTags": [name] if name else None,
                "Layers": [_place(layer) for layer in image.layers],
            }
        ]
    )


def _place(blob: Blob) -> str:
    return f"blobs/sha256/{Digest.parse(blob.descriptor.digest).hex}"
