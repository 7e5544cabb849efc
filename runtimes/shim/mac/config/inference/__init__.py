"""What a builder is told about the upload."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class CustomInferenceConfig:
    """Where the upload's files lie, and what it is."""

    model_path: Path
    framework: Any = "custom"
    matching_files: set[Path] | None = None
    modules_to_include: set[str] = field(default_factory=lambda: {"*.py"})

    def __post_init__(self) -> None:
        self.model_path = Path(self.model_path)


__all__ = ["CustomInferenceConfig"]
