"""The class that users derive their builder from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ...config.inference import CustomInferenceConfig


class InferenceBuilder(ABC):
    """Makes an inference from what lies in the upload."""

    def __init__(self) -> None:
        self._custom_config: CustomInferenceConfig | None = None

    @property
    def custom_config(self) -> CustomInferenceConfig | None:
        """The configuration, where a builder keeps it."""
        return self._custom_config

    @custom_config.setter
    def custom_config(self, config: CustomInferenceConfig) -> None:
        self._custom_config = config

    @property
    @abstractmethod
    def inference(self) -> Any:
        """The inference that `create` fills."""

    @abstractmethod
    def create(self, config: CustomInferenceConfig) -> Any:
        """Load the model files of a configuration into an inference, and return that."""


__all__ = ["InferenceBuilder"]
