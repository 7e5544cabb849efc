"""The kind `network`: a TorchScript module, a Keras model or a SavedModel. Fields are its inputs, rows first.

The packager has put the fields into the network's own order. Answers with keys go by these where the fields have the
very names, else by their order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Load the network; see `main.load`."""
    opened = {"torchscript": _torchscript, "keras": _keras, "savedmodel": _savedmodel}[order["options"]["format"]]
    ask, names = opened(order["model"], list(order["input"])), list(order["output"])

    def answer(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        found = ask([arrays[name] for name in order["input"]])
        if isinstance(found, list):
            return dict(zip(names, found))
        return found if sorted(found) == sorted(names) else dict(zip(names, found.values()))

    return answer


def _torchscript(path: str, _: list[str]) -> Callable[[list[Any]], list[Any] | dict[str, Any]]:
    import torch

    module = torch.jit.load(path, map_location="cpu").eval()

    def ask(arrays: list[Any]) -> list[Any] | dict[str, Any]:
        with torch.inference_mode():
            found = module(*[torch.from_numpy(np.ascontiguousarray(array)) for array in arrays])
        if isinstance(found, Mapping):
            return {str(name): each.detach().numpy() for name, each in found.items()}
        return [each.detach().numpy() for each in (found if isinstance(found, (tuple, list)) else [found])]

    return ask


def _keras(path: str, _: list[str]) -> Callable[[list[Any]], list[Any] | dict[str, Any]]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    # a Lambda layer's code may run here: this process is the sandbox
    model = keras.models.load_model(path, compile=False, safe_mode=False)

    # names of a dict in the model's order, as it was packaged; flattening would sort them
    struct: Any = getattr(model, "output", None)
    is_flat = isinstance(struct, dict) and all(isinstance(each, keras.KerasTensor) for each in struct.values())
    names = list(struct) if is_flat and len(struct) == len(model.outputs) > 1 else []

    def called(arrays: list[Any]) -> list[Any] | dict[str, Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        with torch.inference_mode():
            given = tensors[0] if len(tensors) == 1 else keras.tree.pack_sequence_as(model.input, tensors)
            answered = model(given, training=False)
        if names:
            return {name: answered[name].detach().numpy() for name in names}
        return [each.detach().numpy() for each in keras.tree.flatten(answered)]

    return _one_by_one(called) if any(each.shape[0] == 1 for each in model.inputs) else called


def _savedmodel(path: str, fields: list[str]) -> Callable[[list[Any]], list[Any] | dict[str, Any]]:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    signature = dict(loaded.signatures)
    chosen = signature.get("serving_default") or next(iter(signature.values()))
    specs = chosen.structured_input_signature[1]
    inputs = list(specs) if len(specs) == 1 else fields

    def called(arrays: list[Any]) -> dict[str, Any]:
        assert loaded is not None  # noqa: S101 - kept here: a signature does not keep the variables that it reads
        found = chosen(**{name: tf.constant(array) for name, array in zip(inputs, arrays)})
        return {name: found[name].numpy() for name in sorted(found)}

    return _one_by_one(called) if any(spec.shape[0] == 1 for spec in specs.values()) else called


def _one_by_one(
    ask: Callable[[list[Any]], list[Any] | dict[str, Any]],
) -> Callable[[list[Any]], list[Any] | dict[str, Any]]:
    """Of a model whose first axis is 1: rows are asked by themselves, and joined."""

    def asked(arrays: list[Any]) -> list[Any] | dict[str, Any]:
        found: list[Any] = [ask([array[row : row + 1] for array in arrays]) for row in range(len(arrays[0]))]
        if isinstance(found[0], dict):
            return {name: np.concatenate([each[name] for each in found]) for name in found[0]}
        return [np.concatenate(parts) for parts in zip(*found)]

    return asked
