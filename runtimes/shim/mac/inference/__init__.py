"""The classes that users derive their inference from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..exceptions import ModelNotAssignedError
from ..types import InferenceData


class _WithModel(ABC):
    """Holds a model; a subclass may replace the setter with `@Inference.model.setter`."""

    def __init__(self) -> None:
        self._model: Any = None

    @property
    @abstractmethod
    def expected_model_types(self) -> set[Any]:
        """The types that `model` may have."""

    @property
    def model(self) -> Any:
        """The model that answers; None until one is assigned."""
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _raise_error_if_model_is_not_assigned(self) -> None:
        if self._model is None:
            raise ModelNotAssignedError(f"{type(self).__name__} has no model: assign one before it predicts")

    def _raise_error_if_model_is_wrong_type(self, model: Any) -> None:
        if not isinstance(model, tuple(self.expected_model_types)):
            expected = ", ".join(sorted(each.__name__ for each in self.expected_model_types))
            raise TypeError(f"the model is {type(model).__name__}, expected {expected}")

    raise_error_if_model_is_not_assigned = _raise_error_if_model_is_not_assigned
    raise_error_if_model_is_wrong_type = _raise_error_if_model_is_wrong_type


class Inference(_WithModel):
    """Answers rows with a model."""

    def predict(self, input_data: InferenceData) -> InferenceData:
        """Answer a batch. Raises ModelNotAssignedError before there is a model."""
        self._raise_error_if_model_is_not_assigned()
        return self._predict(input_data)

    @abstractmethod
    def _predict(self, input_data: InferenceData) -> InferenceData:
        """Answer a batch; the model is there."""


class AsyncInference(Inference):
    """Answers rows with a model, in coroutines."""

    async def predict(self, input_data: InferenceData) -> InferenceData:  # type: ignore[override]
        """Answer a batch. Raises ModelNotAssignedError before there is a model."""
        self._raise_error_if_model_is_not_assigned()
        return await self._predict(input_data)

    @abstractmethod
    async def _predict(self, input_data: InferenceData) -> InferenceData:  # type: ignore[override]
        """Answer a batch; the model is there."""


__all__ = ["AsyncInference", "Inference"]
