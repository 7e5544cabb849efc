"""ONNX models of a Cortex API: each is walked through before a worker is given it, which may load it much later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bundle.model_folders import Versions
from edgepack.errors import BadInput
from packager.frameworks.onnx_wire import read_onnx


def check_whole(models: Iterable[Versions], files: Mapping[str, Path]) -> None:
    """Raise BadInput that names model and version of a file that is damaged or cut off; `files` by their place."""
    for model in models:
        for version, place in model.places.items():
            path = next(each for each in files if each.startswith(f"{place}/") and each.endswith(".onnx"))
            try:
                read_onnx(files[path])
            except BadInput as error:
                raise BadInput(f"model '{model.name}', version {version}: {error}") from error
