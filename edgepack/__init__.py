"""edgepack takes any trained model to any edge device and brings every inference home.

The public face: what a user's own program may import. It never imports a room (`arch`, `oci`, …), so that those
names stay free for other libraries in the same process.
"""

from edgepack.errors import (
    BadInput,
    BuildFailed,
    EdgepackError,
    NotTrusted,
    RuntimeFailed,
    Unreachable,
)

__all__ = [
    "BadInput",
    "BuildFailed",
    "EdgepackError",
    "NotTrusted",
    "RuntimeFailed",
    "Unreachable",
    "__version__",
]

__version__ = "0.1.0"
