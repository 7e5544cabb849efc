"""`Ground`: what the images of one target stand on, and who makes the layers above it."""

from __future__ import annotations

from dataclasses import dataclass

from arch.traits import Traits
from buildx.image import Foundation
from buildx.layers import LayerMaker


@dataclass(frozen=True)
class Ground:
    """A base that is there. `traits` are the target's with what the base has: its Python, its glibc, its labels."""

    foundation: Foundation
    traits: Traits
    maker: LayerMaker
