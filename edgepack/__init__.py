"""edgepack takes any trained model to any edge device and brings every inference home.

The public face: what a user's own program may import. It never imports a room (`arch`, `oci`, …), so that those
names stay free for other libraries in the same process.
"""

from __future__ import annotations

from edgepack.errors import (
    BadInput,
    BuildFailed,
    EdgepackError,
    NotTrusted,
    RuntimeFailed,
    Unreachable,
)

TYPE_CHECKING = False  # importing `typing` would take longer than all else that stands here
if TYPE_CHECKING:
    from edgepack.sdk import Prepared, prepare

__all__ = [
    "BadInput",
    "BuildFailed",
    "EdgepackError",
    "NotTrusted",
    "Prepared",
    "RuntimeFailed",
    "Unreachable",
    "__version__",
    "prepare",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`prepare` and what it gives are loaded when they are asked for: a device has no use for them."""
    if name in ("Prepared", "prepare"):
        from edgepack import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module 'edgepack' has no attribute '{name}'")
