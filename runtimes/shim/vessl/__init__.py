"""Stands for the package `vessl`: what its model serving asks of a program is a runner, and a call that registers it.

The methods and arguments are those of VESSL's documented model serving API; what watches training does nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .registration import Registration, register

__all__ = ["RunnerBase", "configure", "finish", "init", "log", "register_model", "register_torch_model"]


class RunnerBase:
    """How a model is kept, loaded and asked. `predict` must be overridden."""

    @staticmethod
    def save_model(model: Any) -> Any:
        """Write the model into files of the working folder; the text to text it returns is what `load_model` gets."""
        raise NotImplementedError("save_model")

    @staticmethod
    def load_model(props: Mapping[str, str] | None, artifacts: Mapping[str, str]) -> Any:
        """Load the model; `props` is what `save_model` returned, `artifacts` leads to the registered files."""
        raise NotImplementedError("load_model")

    @staticmethod
    def preprocess_data(data: Any) -> Any:
        """Make the model's input of what a client sent: by default the same."""
        return data

    @staticmethod
    def predict(model: Any, data: Any) -> Any:
        """Ask the model."""
        raise NotImplementedError("predict")

    @staticmethod
    def postprocess_data(data: Any) -> Any:
        """Make a client's answer of the model's output: by default the same."""
        return data


class TorchRunner:
    """The runner of `register_torch_model`: the module is called in evaluation mode."""

    def __init__(self, preprocess: Callable[[Any], Any], postprocess: Callable[[Any], Any]) -> None:
        self.preprocess_data = preprocess
        self.postprocess_data = postprocess

    @staticmethod
    def predict(model: Any, data: Any) -> Any:
        """Ask the module, without gradients."""
        import torch

        model.eval()
        with torch.no_grad():
            return model(data)


def register_model(
    repository_name: str,
    model_number: int | None,
    runner_cls: type[RunnerBase],
    model_instance: Any = None,
    requirements: Sequence[str] = (),
    artifacts: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> None:
    """Register a runner, and a model instance that it keeps or that is kept as it is.

    Raises ValueError that says which argument does not fit.
    """
    _check_runner(runner_cls, model_instance, model_number)
    keeps, loads = _overrides(runner_cls, "save_model"), _overrides(runner_cls, "load_model")
    register(
        Registration(
            repository=repository_name,
            number=model_number,
            runner=runner_cls,
            runner_name=runner_cls.__name__,
            instance=None if loads else model_instance,
            save=runner_cls.save_model if keeps and model_instance is not None else None,
            model=model_instance,
            loads=loads,
            requirements=requirements,
            artifacts=artifacts or {},
        )
    )


def register_torch_model(
    repository_name: str,
    model_number: int | None,
    model_instance: Any,
    preprocess_data: Callable[[Any], Any] | None = None,
    postprocess_data: Callable[[Any], Any] | None = None,
    requirements: Sequence[str] = (),
    **kwargs: Any,
) -> None:
    """Register a torch module with what is done before and after it. Raises ValueError as `register_model`."""
    if not callable(model_instance):
        raise ValueError("register_torch_model needs model_instance: a torch module")
    for name, given in (("preprocess_data", preprocess_data), ("postprocess_data", postprocess_data)):
        if given is not None and not callable(given):
            raise ValueError(f"{name} is {type(given).__name__}: expected a function of one argument")
    register(
        Registration(
            repository=repository_name,
            number=model_number,
            runner=TorchRunner(preprocess_data or RunnerBase.preprocess_data, postprocess_data or _same),
            runner_name=type(model_instance).__name__,
            instance=model_instance,
            requirements=requirements,
            adds=("torch",),
        )
    )


def configure(*args: Any, **kwargs: Any) -> None:
    """Do nothing: there is no account here."""


def init(*args: Any, **kwargs: Any) -> None:
    """Do nothing: no experiment is recorded here."""


def log(*args: Any, **kwargs: Any) -> None:
    """Do nothing: no experiment is recorded here."""


def finish(*args: Any, **kwargs: Any) -> None:
    """Do nothing: no experiment is recorded here."""


def _same(data: Any) -> Any:
    return data


def _check_runner(runner: Any, instance: Any, number: Any) -> None:
    if not (isinstance(runner, type) and issubclass(runner, RunnerBase)):
        raise ValueError("runner_cls is no class that extends vessl.RunnerBase")
    if not _overrides(runner, "predict"):
        raise ValueError(f"class {runner.__name__} has no predict(model, data)")
    keeps, loads = _overrides(runner, "save_model"), _overrides(runner, "load_model")
    if keeps and not loads:
        raise ValueError(f"class {runner.__name__} has save_model and no load_model: what is saved must be loaded")
    if instance is None and number is None:
        raise ValueError("model_number=None makes a new model: give its model_instance too")
    if instance is None and not loads:
        raise ValueError(f"give model_instance, or a load_model(props, artifacts) to class {runner.__name__}")


def _overrides(runner: type[RunnerBase], name: str) -> bool:
    return getattr(runner, name) is not getattr(RunnerBase, name)
