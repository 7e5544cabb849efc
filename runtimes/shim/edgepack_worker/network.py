"""The kind `network`: a TorchScript module or a Keras model. Fields are its inputs in order, rows first."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Load the network; see `main.load`."""
    opened = {"torchscript": _torchscript, "keras": _keras}[order["options"]["format"]]
    ask, names = opened(order["model"]), list(order["output"])

    def answer(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        found = ask([arrays[name] for name in order["input"]])
        return dict(zip(names, found))

    return answer


def _torchscript(path: str) -> Callable[[list[Any]], list[Any]]:
    import torch

    module = torch.jit.load(path, map_location="cpu").eval()

    def ask(arrays: list[Any]) -> list[Any]:
        with torch.inference_mode():
            found = module(*[torch.from_numpy(np.ascontiguousarray(array)) for array in arrays])
        given = found.values() if isinstance(found, Mapping) else found if isinstance(found, (tuple, list)) else [found]
        return [each.detach().numpy() for each in given]

    return ask


def _keras(path: str) -> Callable[[list[Any]], list[Any]]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    # a Lambda layer's code may run here: this process is the sandbox
    model = keras.models.load_model(path, compile=False, safe_mode=False)

    def ask(arrays: list[Any]) -> list[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        with torch.inference_mode():
            given = tensors[0] if len(tensors) == 1 else keras.tree.pack_sequence_as(model.input, tensors)
            found = keras.tree.flatten(model(given, training=False))
        return [each.detach().numpy() for each in found]

    return ask
