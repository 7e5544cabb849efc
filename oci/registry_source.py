"""A tag or digest in a registry as a `Source`: blobs are streamed when they are read, and nothing is kept."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from urllib3.exceptions import HTTPError

from oci._session import Session
from oci.blob import Blob, BytesBlob
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.image import INDEXES, MANIFESTS

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER = 1 << 18

PullManifest = Callable[[str, str], tuple[bytes, str]]
ListReferrers = Callable[[str, str], list[Descriptor]]


@dataclass(frozen=True)
class RegistrySource:
    """What a tag or digest names. Made by `Registry.source`."""

    session: Session
    repository: str
    pointer: str
    pull_manifest: PullManifest
    list_referrers: ListReferrers
    _known: dict[str, BytesBlob] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Host, repository and tag or digest."""
        return f"{self.session.host}/{self.repository}{'@' if ':' in self.pointer else ':'}{self.pointer}"

    def top(self) -> list[Descriptor]:
        """The manifest or index that the tag or digest names now."""
        data, media_type = self.pull_manifest(self.repository, self.pointer)
        blob = BytesBlob.of(data, media_type)
        self._known[blob.descriptor.digest] = blob
        return [blob.descriptor]

    def find(self, descriptor: Descriptor) -> Blob:
        """The blob; whether the registry has it shows when it is opened, manifests are pulled now."""
        if descriptor.digest in self._known:
            return BytesBlob(self._known[descriptor.digest].data, descriptor)
        if descriptor.media_type in MANIFESTS | INDEXES:
            return BytesBlob(self.pull_manifest(self.repository, descriptor.digest)[0], descriptor)
        return RemoteBlob(self.session, self.repository, descriptor)

    def referrers(self, digests: Collection[str]) -> list[Descriptor]:
        """What the registry, or its fallback tags, list under each of these."""
        return [listed for digest in digests for listed in self.list_referrers(self.repository, digest)]

    def held(self) -> list[Descriptor]:
        """Nothing: a registry lists no blobs."""
        return []


@dataclass(frozen=True)
class RemoteBlob:
    """A blob in a registry."""

    session: Session
    repository: str
    descriptor: Descriptor

    def open(self) -> BinaryIO:
        """Stream from the beginning. A cut is Unreachable: what must survive one is pulled to a file."""
        return io.BufferedReader(_Stream(self), buffer_size=_BUFFER)


class _Stream(io.RawIOBase):
    def __init__(self, blob: RemoteBlob) -> None:
        self._session, self._stack = blob.session, contextlib.ExitStack()
        self._response = self._stack.enter_context(
            blob.session.stream(
                f"/v2/{blob.repository}/blobs/{Digest.parse(blob.descriptor.digest)}",
                scope=f"repository:{blob.repository}:pull",
                expected=(200,),
            )
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._response.read1(len(view), decode_content=False)
        except (HTTPError, OSError) as error:
            raise self._session.unreachable(error) from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stack.close()
        super().close()
