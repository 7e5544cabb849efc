"""`Ingredients`: what went into one image, for those who write it down: SBOM and provenance."""

from __future__ import annotations

from dataclasses import dataclass

from arch.traits import Traits
from buildx.created import Created
from buildx.lock import LockedBase, LockedGiven, LockedTarget
from bundle.bundle import Bundle


@dataclass(frozen=True)
class Ingredients:
    """Of one image. Exactly one of `base`, our own, and `given`, the user's, is there."""

    traits: Traits
    bundle: Bundle
    wheels: LockedTarget
    base: LockedBase | None
    given: LockedGiven | None
    created: Created
    builder: str
    compression: str

    @property
    def file_name(self) -> str:
        """What files about this image begin with."""
        return f"{self.traits.target.arch}-{self.traits.target.accel}"
