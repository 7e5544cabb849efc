"""The engine that TFLite models run in: LiteRT (`ai-edge-litert`), else `tflite-runtime`, which some targets have. The
one module that imports them, and only when a model is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.errors import BadInput, RuntimeFailed

_PACKAGES = {"ai-edge-litert": "LiteRT", "tflite-runtime": "tflite-runtime"}  # the better one first
_MISSING = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")
_DELEGATED = "DELEGATE"  # the operator that stands for those which XNNPACK took over


@dataclass(frozen=True)
class Engine:
    """One engine. `name` is for people, with its release."""

    name: str
    module: Any

    @classmethod
    def here(cls) -> Engine:
        """The better one of those installed. Raises BadInput without any."""
        for package, name in _PACKAGES.items():
            try:
                module = import_module(f"{package.replace('-', '_')}.interpreter")
            except ImportError:
                continue
            return cls(f"{name} {_release(package)}".strip(), module)
        raise BadInput("no TFLite runtime is installed: pip install 'edgepack[tflite]'")

    def open(self, path: Path, model: str, threads: int) -> Any:
        """An interpreter of a file, with the shapes that the file has.

        Raises RuntimeFailed that names the model when the engine refuses the file.
        """
        try:
            made = self.module.Interpreter(model_path=str(path), num_threads=threads)
            made.allocate_tensors()
        except (RuntimeError, ValueError, OSError, SystemError) as error:
            raise RuntimeFailed(f"model '{model}' does not load in {self.name}: {self._why(error)}") from error
        return made

    def uses_xnnpack(self, interpreter: Any) -> bool:
        """Whether it computes a part of its model by XNNPACK, whose threads are those it was opened with."""
        details = getattr(interpreter, "_get_ops_details", list)  # public in neither engine, there in both
        operators: list[dict[str, Any]] = details()
        return any(each.get("op_name") == _DELEGATED for each in operators)

    def _why(self, error: Exception) -> str:
        missing = _MISSING.search(str(error))
        if missing:
            return (
                f"it needs {missing[1]} version {missing[2]}, which this release does not have: convert the model with "
                "an older TensorFlow, or run it where ai-edge-litert is as new as the converter"
            )
        if isinstance(error, SystemError):  # as its module does where numpy's interface is another
            return f"it was not built for numpy {np.__version__}: install numpy<2, or ai-edge-litert"
        return plain(error)


def plain(error: Exception) -> str:
    """An error of the engine in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # built from source, or a test's own
        return ""
