"""`Digest`: the name of a blob. sha256 only (image-spec, "Digests")."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from edgepack.errors import NotTrusted

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


class Digest(str):
    """`sha256:` and 64 lower-case hexadecimal digits; a str, so it serializes and compares as one."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Take a digest from outside. Raises NotTrusted unless it is a whole sha256 digest."""
        if not is_digest(text):
            raise NotTrusted(f"'{text[:100]}' is not a digest: expected sha256: and 64 hexadecimal digits")
        return cls(text)

    @classmethod
    def of(cls, data: bytes | Iterable[bytes]) -> Digest:
        """Compute the digest of bytes or of chunks of them."""
        hasher = hashlib.sha256()
        for chunk in [data] if isinstance(data, bytes) else data:
            hasher.update(chunk)
        return cls(f"sha256:{hasher.hexdigest()}")

    @property
    def hex(self) -> str:
        """The 64 digits alone: a blob's file name in a layout folder."""
        return self[len("sha256:") :]


def is_digest(text: str) -> bool:
    """Whether a text is a whole sha256 digest."""
    return _PATTERN.fullmatch(text) is not None
