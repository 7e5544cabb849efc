"""A registry that speaks the OCI distribution spec: push and pull of blobs, manifests and whole indexes.

What is trusted: digests, and nothing else. A manifest pulled by tag is hashed here, one pulled by digest must have it,
and each blob is checked while it streams. How bytes travel stands in `_download` and `_upload`, who asks in
`_authorizer`, what is tried again in `_session`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType

import msgspec

from durable.files import make_folder, write_atomically
from edgepack.errors import BadInput, NotTrusted
from oci._download import download
from oci._session import ANSWER_S, READ_S, Session
from oci._upload import has_blob, upload
from oci.blob import Blob, BytesBlob, FileBlob
from oci.credentials import Credentials
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.image import IMAGE_INDEX, INDEXES, MANIFESTS, Image, Index, IndexDocument, parse_index
from oci.layout import Layout
from oci.reference import check_repository, check_tag
from oci.registry_source import RegistrySource
from oci.source import MANIFEST_LIMIT, index_json, read_image, read_index

AT_ONCE = 4  # blobs in flight
_ABORT_EVERY_S = 0.1
_ACCEPT = ", ".join(sorted(MANIFESTS | INDEXES))


class Registry:
    """A client of one registry.

    `auth` is Basic or Bearer; plain http is spoken to loopback hosts by itself, to others only with `plain_http`.
    `ca_file` is the CA of a private registry, which may be silent for `read_s` seconds and take `answer_s` over an
    answer; a blob may take as long as it comes at a bearable rate. `progress` is called with each blob whose bytes
    begin to move.
    """

    def __init__(
        self,
        host: str,
        auth: Credentials | None = None,
        plain_http: bool = False,
        *,
        ca_file: Path | None = None,
        attempts: int = 5,
        sleep: Callable[[float], object] | None = None,
        read_s: float = READ_S,
        answer_s: float = ANSWER_S,
        progress: Callable[[Descriptor], None] | None = None,
    ) -> None:
        self.host = host
        self._progress = progress or (lambda descriptor: None)
        self._session = Session(
            host,
            auth,
            plain_http=plain_http,
            ca_file=ca_file,
            attempts=attempts,
            sleep=sleep,
            read_s=read_s,
            answer_s=answer_s,
        )

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry has a blob."""
        check_repository(repository)
        return has_blob(self._session, repository, digest)

    def pull_blob(self, repository: str, descriptor: Descriptor, into: Path) -> FileBlob:
        """Fetch a blob into the file `into`, by way of `into.part`, which a later call continues.

        Raises NotTrusted for wrong bytes, which are deleted; Unreachable after a cut, which keeps the part.
        """
        check_repository(repository)
        return self._pull(self._session, repository, descriptor, into)

    def push_blob(self, repository: str, blob: Blob, mount_from: str | None = None) -> None:
        """Bring a blob to the registry unless it is there; `mount_from` is a repository that may have it."""
        check_repository(repository)
        self._push(self._session, repository, mount_from, blob)

    def pull_manifest(self, repository: str, pointer: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, and its media type.

        Raises NotTrusted if it is larger than 4 MiB or not what its digest says, BadInput if there is none.
        """
        found = self._manifest(repository, pointer, (200,))
        if found is None:
            raise BadInput(f"registry '{self.host}' has no '{repository}' by '{pointer}'")
        return found

    def push_manifest(self, repository: str, manifest: BytesBlob, tag: str | None = None) -> None:
        """Put a manifest or index, by its digest or under a tag. What it names must be there."""
        check_repository(repository)
        if tag is not None:
            check_tag(tag)
        digest = manifest.descriptor.digest
        answer = self._session.request(
            "PUT",
            f"/v2/{repository}/manifests/{tag or digest}",
            scope=f"repository:{repository}:pull,push",
            expected=(201,),
            headers={"Content-Type": manifest.descriptor.media_type},
            body=manifest.data,
        )
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise NotTrusted(f"registry '{self.host}' stored {digest} as {stored[:100]}: do not use that repository")

    def pull_index(self, repository: str, pointer: str, folder: Path) -> Index:
        """Pull all that a tag or digest names into a layout folder, and make its index.json name exactly that."""
        layout = Layout.create(folder)
        index = read_index(self.source(repository, pointer))
        self._pull_all(repository, index.blobs(), layout)
        write_atomically(folder / "index.json", index_json(index, None))
        return layout.index()

    def pull_image(self, repository: str, digest: str, folder: Path) -> Image:
        """Pull one image by the digest of its manifest into the blobs of a layout folder; its index.json stays."""
        Digest.parse(digest)
        layout = Layout.create(folder)
        source = self.source(repository, digest)
        image = read_image(source, source.top()[0])
        self._pull_all(repository, [*image.blobs(), image.manifest], layout)
        return layout.image(digest)

    def push_index(self, repository: str, tag: str | None, index: Index, mount_from: str | None = None) -> str:
        """Push an index with all that is in it: blobs, then manifests, then the entry under the tag.

        Returns the digest by which it can be pulled, which is that of its layout and its tar.
        """
        for image in index.images:
            self._push_blobs(repository, image, mount_from)
            self.push_manifest(repository, image.manifest)
            self._refer(repository, image)
        self.push_manifest(repository, index.entry, tag)
        return index.entry.descriptor.digest

    def push_image(self, repository: str, image: Image, tag: str | None = None, mount_from: str | None = None) -> str:
        """Push one image or artifact, and list it under its subject if it has one. Returns its digest."""
        self._push_blobs(repository, image, mount_from)
        self.push_manifest(repository, image.manifest, tag)
        self._refer(repository, image)
        return image.digest

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """What refers to a manifest: from the registry's list, or where it keeps none from the fallback tag."""
        check_repository(repository)
        path = f"/v2/{repository}/referrers/{Digest.parse(digest)}"
        scope = f"repository:{repository}:pull"
        answer = self._session.request("GET", path, scope=scope, expected=(200, 400, 404, 405))
        if answer.status == 200:
            return parse_index(answer.body, f"the referrers of {digest}").manifests
        return self._fallback(repository, digest)

    def source(self, repository: str, pointer: str) -> RegistrySource:
        """A tag or digest as a place to read from without keeping anything: for `validate`."""
        check_repository(repository)
        return RegistrySource(self._session, repository, pointer, self.pull_manifest, self.referrers)

    def _manifest(self, repository: str, pointer: str, expected: tuple[int, ...]) -> tuple[bytes, str] | None:
        check_repository(repository)
        is_digest = ":" in pointer
        if is_digest:
            Digest.parse(pointer)
        else:
            check_tag(pointer)
        answer = self._session.request(
            "GET",
            f"/v2/{repository}/manifests/{pointer}",
            scope=f"repository:{repository}:pull",
            expected=expected,
            headers={"Accept": _ACCEPT},
        )
        if answer.status == 404:
            return None
        digest = Digest.of(answer.body)
        said = pointer if is_digest else answer.headers.get("Docker-Content-Digest", digest)
        if len(answer.body) > MANIFEST_LIMIT or (digest != said and said.startswith("sha256:")):
            raise NotTrusted(f"registry '{self.host}' gives {digest} for the manifest {said[:100]}: refused")
        return answer.body, answer.headers.get("Content-Type", "").partition(";")[0].strip()

    def _pull(self, session: Session, repository: str, descriptor: Descriptor, into: Path) -> FileBlob:
        self._progress(descriptor)
        make_folder(into.parent)
        return download(session, repository, descriptor, into)

    def _push(self, session: Session, repository: str, mount_from: str | None, blob: Blob) -> None:
        self._progress(blob.descriptor)
        upload(session, repository, blob, mount_from)

    def _pull_all(self, repository: str, blobs: Iterable[Blob], layout: Layout) -> None:
        def pull(session: Session, blob: Blob) -> object:
            if isinstance(blob, BytesBlob):
                return layout.add(blob)
            return self._pull(session, repository, blob.descriptor, layout.path(blob.descriptor.digest))

        self._at_once(pull, blobs)

    def _push_blobs(self, repository: str, image: Image, mount_from: str | None) -> None:
        check_repository(repository)
        self._at_once(lambda session, blob: self._push(session, repository, mount_from, blob), image.blobs())

    def _at_once(self, move: Callable[[Session, Blob], object], blobs: Iterable[Blob]) -> None:
        """Move several blobs at a time. The first failure, or Ctrl-C, stops the others."""
        stop = threading.Event()
        session = self._session.until(stop)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="registry") as pool:
            moves: list[Future[object]] = []
            try:
                for blob in blobs:
                    moves.append(pool.submit(move, session, blob))
                for done in as_completed(moves):
                    done.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                while not all(each.done() for each in moves):  # again and again: one may just have connected
                    session.abort()
                    time.sleep(_ABORT_EVERY_S)
                raise

    def _refer(self, repository: str, image: Image) -> None:
        """List an image under its subject (distribution-spec, "Referrers Tag Schema"), where the registry does not."""
        if image.subject is None or self._lists_referrers(repository, image.subject.digest):
            return
        listed = self._fallback(repository, image.subject.digest)
        if image.digest not in [descriptor.digest for descriptor in listed]:
            listed.append(image.manifest.descriptor)
            document = IndexDocument(schema_version=2, media_type=IMAGE_INDEX, manifests=listed)
            tag = image.subject.digest.replace(":", "-")
            self.push_manifest(repository, BytesBlob.of(msgspec.json.encode(document), IMAGE_INDEX), tag)

    def _lists_referrers(self, repository: str, digest: str) -> bool:
        path = f"/v2/{repository}/referrers/{Digest.parse(digest)}"
        scope = f"repository:{repository}:pull,push"
        answer = self._session.request("GET", path, scope=scope, expected=(200, 400, 404, 405))
        return answer.status == 200

    def _fallback(self, repository: str, digest: str) -> list[Descriptor]:
        found = self._manifest(repository, digest.replace(":", "-"), (200, 404))
        return list(parse_index(found[0], f"the referrers of {digest}").manifests) if found else []
