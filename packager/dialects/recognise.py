"""Which system an upload was laid out for, told by the names of its files and by its text; nothing is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from packager.dialects import ads_layout, cortex_layout, mlflow_folder, vessl_layout

# dialect → whether a file, folder or zip is laid out so; each asks for what no other layout has
RECOGNISES: Mapping[str, Callable[[Path], bool]] = {
    "mlflow": mlflow_folder.is_model,
    "cortex": cortex_layout.is_cortex,
    "ads": ads_layout.is_artifact,
    "vessl": vessl_layout.is_one,
}


def dialect_of(path: Path) -> str | None:
    """The dialect of an upload, None for one that is of no other system. Raises BadInput for a zip that is none."""
    return next((name for name, is_one in RECOGNISES.items() if is_one(path)), None)


def given_name(path: Path) -> str | None:
    """The name that an upload gives itself, None where it has none. Raises BadInput where its file does not read."""
    return cortex_layout.api_name(path) if dialect_of(path) == "cortex" else None
