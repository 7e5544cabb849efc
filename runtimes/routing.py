"""`RoutedStep`: several models in one step. One of them answers a row, others only have their answers logged.

Rules:
- by weights: each row is drawn by itself, or by the hash of its key, so that the same key meets the same model on
  every device and after every start
- a shadow never changes an answer, nor when it is given: shadows are asked afterwards, by `shadow`
- what a shadow cannot answer is left out, and said so
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from bundle.pipeline import RoutingSpec, StepSpec
from columns.columns import Columns
from columns.json_values import json_values
from columns.schema import Field, Schema
from columns.values import object_array
from edgepack.errors import EdgepackError
from runtimes.protocol import Runtime

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Routed:
    """What a step gave: outputs, and which of `names` answered each row."""

    outputs: dict[str, np.ndarray]
    models: np.ndarray  # of indices into the step's `names`


class RoutedStep:
    """The models of one step, loaded; a `Runtime` that always answers with the first of them, and more."""

    def __init__(self, step: StepSpec, routing: RoutingSpec, load: Callable[[StepSpec], Runtime]) -> None:
        self._input, self._output = Schema.parse(step.input), Schema.parse(step.output)
        self.names = tuple(routing.split) or (step.name,)
        self._load(step, routing, load)
        self._bounds = np.cumsum([routing.split.get(name, 1) for name in self.names])
        self._shadowing, self._is_closed = threading.Lock(), False
        self._key = None if routing.key is None else routing.key.removeprefix("in.")

    def _load(self, step: StepSpec, routing: RoutingSpec, load: Callable[[StepSpec], Runtime]) -> None:
        chosen = [routing.models[name] for name in self.names] if routing.split else [step]
        loaded: list[Runtime] = []
        try:
            for model in [*chosen, *(routing.models[name] for name in routing.shadow)]:
                loaded.append(load(model))
        except BaseException:
            for runtime in loaded:
                runtime.close()
            raise
        self._models = loaded[: len(chosen)]
        self._shadows = dict(zip(routing.shadow, loaded[len(chosen) :], strict=True))

    @property
    def input(self) -> Schema:
        """The fields it takes, its key among them."""
        return self._input

    @property
    def output(self) -> Schema:
        """The fields that each of its models gives."""
        return self._output

    @property
    def shadow_names(self) -> tuple[str, ...]:
        """The models whose answers are logged only."""
        return tuple(self._shadows)

    @property
    def runtimes(self) -> dict[str, Runtime]:
        """All models by name."""
        return {**dict(zip(self.names, self._models, strict=True)), **self._shadows}

    def infer(self, arrays: Arrays, rows: int) -> dict[str, np.ndarray]:
        """The first model's answers to all rows."""
        return self._models[0].infer(arrays, rows)

    def rehearse(self, arrays: Arrays, rows: int) -> dict[str, np.ndarray]:
        """As `infer`, after all other models have answered the same rows, whatever they said."""
        for runtime in (*self._models[1:], *self._shadows.values()):
            runtime.infer(arrays, rows)
        return self.infer(arrays, rows)

    def route(self, arrays: Arrays, rows: int, inputs: Columns) -> Routed:
        """Answer each row by the model that its key or chance gives. `inputs` are the pipeline's own."""
        models = self._drawn(inputs, rows)
        return Routed(self._answers(arrays, rows, models), models)

    def shadow(self, arrays: Arrays, rows: int) -> dict[str, Columns]:
        """What the shadows say of rows that were answered; those that fail are missing, as all are after `close`."""
        found = {}
        for name, runtime in self._shadows.items():
            with self._shadowing:
                columns = None if self._is_closed else self._shadow(runtime, arrays, rows)
            if columns is not None:
                found[name] = columns
        return found

    def close(self) -> None:
        """Let go of all models. A shadow at work in another process is ended, one in this process ends by itself."""
        self._is_closed = True
        for runtime in self._shadows.values():
            if hasattr(runtime, "replicas"):
                runtime.close()
        with self._shadowing:
            for runtime in (*self._models, *self._shadows.values()):
                runtime.close()

    def _drawn(self, inputs: Columns, rows: int) -> np.ndarray:
        if len(self.names) == 1:
            return np.zeros(rows, dtype=np.intp)
        numbers = _random(rows) if self._key is None else _hashed(inputs.schema[self._key], inputs[self._key])
        drawn: np.ndarray = np.searchsorted(self._bounds, numbers % np.uint64(self._bounds[-1]), side="right")
        return drawn

    def _answers(self, arrays: Arrays, rows: int, models: np.ndarray) -> dict[str, np.ndarray]:
        used = np.unique(models)
        if len(used) == 1:
            return self._models[int(used[0])].infer(arrays, rows)
        places = {int(model): np.flatnonzero(models == model) for model in used}
        parts = {
            model: self._models[model].infer({name: array[at] for name, array in arrays.items()}, len(at))
            for model, at in places.items()
        }
        return {name: _merged([(places[m], parts[m][name]) for m in places], rows) for name in self._output.names}

    def _shadow(self, runtime: Runtime, arrays: Arrays, rows: int) -> Columns | None:
        try:
            return Columns(self._output, runtime.infer(arrays, rows), rows)
        except EdgepackError:
            return None


def _random(rows: int) -> np.ndarray:
    return np.frombuffer(os.urandom(8 * rows), dtype=np.uint64)


def _hashed(key: Field, array: np.ndarray) -> np.ndarray:
    """64 bits of each value's text: the same on every machine."""
    values: list[Any] = array.tolist()
    if array.dtype == object:
        values = json_values(key.type, values, exact=True)
    texts = (orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY) for value in values)
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _merged(parts: list[tuple[np.ndarray, np.ndarray]], rows: int) -> np.ndarray:
    """The rows of several answers at their places; rows that differ in shape become Python values."""
    shapes = {(array.shape[1:], array.dtype) for _, array in parts}
    if len(shapes) > 1:
        parts = [(at, object_array(array.tolist())) for at, array in parts]
    first = parts[0][1]
    whole = np.empty((rows, *first.shape[1:]), dtype=first.dtype)
    for at, array in parts:
        whole[at] = array
    return whole
