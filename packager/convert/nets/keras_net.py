"""Keras models, `.keras` and `.h5`, on Keras's torch backend: no TensorFlow is needed for either."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch

from ..fields import Unsuited, line
from .tensors import Outputs, TensorField, names_of, one_by_one, placed
from .torchscript import exported

logging.getLogger("absl").setLevel(logging.ERROR)


class Net:
    """A loaded model; arrays go by the names of fields, in the order of the model's inputs."""

    kind = "Keras"
    wide: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        self.model_, self.has_code = _opened(path)
        if not getattr(self.model_, "inputs", None):
            raise Unsuited("it does not say its inputs: call the model once, or build it with keras.Input, and save it")
        self._single = any(each.shape[0] == 1 for each in self.model_.inputs)  # rows one by one
        self.outputs = _outputs(self.model_)

    @property
    def model(self) -> str:
        """What it is, for the report."""
        return f"Keras {type(self.model_).__name__}, {self.model_.count_params()} parameters"

    def fields(self, declared: list[TensorField] | None) -> list[TensorField]:
        """The input fields: the model's, or those given, which may fix an axis that it leaves free."""
        names = [str(each.name) for each in self.model_.inputs]
        keys = _keys(getattr(self.model_, "input", None), len(names))
        shown = names_of("input", len(names), keys or names)
        own = [
            TensorField(name, str(each.dtype), tuple(-1 if size is None else int(size) for size in each.shape[1:]))
            for name, each in zip(shown, self.model_.inputs, strict=True)
        ]
        if declared is None:
            return own
        if len(declared) != len(own):
            raise Unsuited(f"[steps.input] has {len(declared)} fields, the model takes {len(own)}")
        fields = placed("input", declared, keys, names, shown)
        for want, have in zip(fields, own, strict=True):
            if not _agrees(want, have):
                raise Unsuited(f"[steps.input] {want.name} is {want.text}, the model takes {have.text}")
        return fields

    def ask(self, arrays: Mapping[str, Any]) -> list[Any]:
        """The model's answers, in its order; those of a dict in the order of its keys."""
        return one_by_one(self._asked, arrays) if self._single else self._asked(arrays)

    def _asked(self, arrays: Mapping[str, Any]) -> list[Any]:
        with torch.inference_mode():
            found = self._called([torch.from_numpy(array) for array in arrays.values()])
        return [each.detach().numpy() for each in found]

    def export(
        self, path: str, arrays: Mapping[str, Any], inputs: Sequence[TensorField], outputs: Sequence[TensorField]
    ) -> None:
        """Write the model as ONNX; raises what the exporter raises."""
        if self.has_code:
            raise Unsuited("it has a Lambda layer, whose Python code only Keras can run")
        exported(_Flat(self._called, self.model_), path, arrays, inputs, outputs, is_single=self._single)

    def _called(self, tensors: list[Any]) -> list[Any]:
        struct = getattr(self.model_, "input", None) if len(tensors) > 1 else None
        given = tensors[0] if len(tensors) == 1 else keras.tree.pack_sequence_as(struct, tensors)
        found = self.model_(given, training=False)
        keys = self.outputs.keys
        return [found[key] for key in keys] if keys else list(keras.tree.flatten(found))


class _Flat(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """Takes and gives tensors one after another, as the exporter wants them."""

    def __init__(self, call: Any, model: Any) -> None:
        super().__init__()
        self._call, self.inner = call, model

    def forward(self, *tensors: Any) -> tuple[Any, ...]:
        return tuple(self._call(list(tensors)))


def _outputs(model: Any) -> Outputs:
    """The keys of several outputs that the model gives in a dict, in its order: `outputs` has them sorted. The names of
    their layers, where it gives them otherwise.
    """
    struct: Any = getattr(model, "output", None)
    if _keys(struct, len(model.outputs)) and len(struct) > 1:
        return Outputs(list(struct))
    return Outputs(names=[str(name) for name in getattr(model, "output_names", ())])


def _keys(struct: Any, count: int) -> list[str]:
    """The keys of a dict of so many tensors, in the order that flattening gives; none for what is no such dict."""
    if not isinstance(struct, dict) or len(struct) != count:
        return []
    if not all(isinstance(each, keras.KerasTensor) for each in struct.values()):
        return []
    places = keras.tree.pack_sequence_as(struct, list(range(count)))
    return sorted(places, key=places.get)


def _opened(path: str) -> tuple[Any, bool]:
    """The model, and whether it holds code. Code is loaded too: this process is the sandbox that it may run in."""
    warnings.simplefilter("ignore")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True), False
    except Exception as error:  # Keras raises anything for a file that it does not read
        if "safe_mode" not in str(error) and "Lambda" not in str(error):
            raise Unsuited(_reason(error)) from error
    try:
        return keras.models.load_model(path, compile=False, safe_mode=False), True
    except Exception as error:
        raise Unsuited(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = line(error)
    unknown = re.search(r"Could not locate (class|function) '([^']{1,80})'", str(error))
    if unknown:
        what = f"'{unknown[2]}', a {unknown[1]} of its own that the file does not carry"
        return f"it needs {what}: package it as 'custom' (BYOP)"
    return f"it does not load in Keras {keras.__version__}: {type(error).__name__}: {text}"


def _agrees(want: TensorField, have: TensorField) -> bool:
    return (
        want.scalar == have.scalar
        and len(want.shape) == len(have.shape)
        and all(size in (-1, given) for size, given in zip(have.shape, want.shape, strict=True))
    )


def versions() -> dict[str, str]:
    """What the answers depend on."""
    return {"keras": str(keras.__version__), "torch": str(torch.__version__)}
