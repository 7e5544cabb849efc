"""pyarrow, or one line that says what to install. Only the Arrow modules of this room ask for it."""

from __future__ import annotations

from edgepack.errors import BadInput

try:
    import pyarrow as pa
except ImportError as error:
    raise BadInput("pyarrow is not installed: Arrow needs `pip install 'edgepack[agent]'`") from error

__all__ = ["pa"]
