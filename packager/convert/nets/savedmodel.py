"""TensorFlow SavedModels: the signature `serving_default`, or the only one there is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

import onnx
import tensorflow as tf

from ..fields import Unsuited, line
from .tensors import Outputs, TensorField, one_by_one, placed

OPSET, IR = 17, 8
_USUAL = "serving_default"


class Net:
    """A loaded model; arrays go by the names of fields, in the order of the signature's sorted inputs."""

    kind = "TensorFlow"
    wide: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        try:
            self._loaded = tf.saved_model.load(path)  # kept: its signature does not keep its variables
        except Exception as error:  # TensorFlow raises anything for a folder that it does not read
            raise Unsuited(f"it does not load in TensorFlow {tf.__version__}: {line(error)}") from error
        self.key, self._signature = _signature(self._loaded)
        self._specs = dict(sorted(self._signature.structured_input_signature[1].items()))
        self.outputs = Outputs(sorted(self._signature.structured_outputs))
        self._single = any(spec.shape.rank and spec.shape[0] == 1 for spec in self._specs.values())  # rows one by one

    @property
    def model(self) -> str:
        """What it is, for the report."""
        return f"SavedModel, signature {self.key}"

    def fields(self, declared: list[TensorField] | None) -> list[TensorField]:
        """The input fields: the signature's, or those given, by the same names; one field may be named otherwise."""
        own = [_field(name, spec) for name, spec in self._specs.items()]
        if declared is None:
            return own
        if not len(declared) == len(own) == 1 and {each.name for each in declared} != set(self._specs):
            raise Unsuited(f"[steps.input] must name the signature's inputs: {', '.join(self._specs)}")
        fields = placed("input", declared, list(self._specs))
        for each, have in zip(fields, own, strict=True):
            if each.scalar != have.scalar or not have.fits(each.shape):
                raise Unsuited(f"[steps.input] {each.name} is {each.text}, the model takes {have.text}")
        return fields

    def ask(self, arrays: Mapping[str, Any]) -> list[Any]:
        """The signature's answers, in the order of their names."""
        return one_by_one(self._called, arrays) if self._single else self._called(arrays)

    def _called(self, arrays: Mapping[str, Any]) -> list[Any]:
        found = self._signature(**{name: tf.constant(each) for name, each in zip(self._specs, arrays.values())})
        return [found[name].numpy() for name in self.outputs.keys]

    def export(
        self, path: str, arrays: Mapping[str, Any], inputs: Sequence[TensorField], outputs: Sequence[TensorField]
    ) -> None:
        """Write the model as ONNX; raises what the exporter raises."""
        import tf2onnx

        known = list(self._specs.values())
        specs = [tf.TensorSpec(each.shape, each.dtype, f"in{at}") for at, each in enumerate(known)]

        def called(*tensors: Any) -> list[Any]:
            found = self._signature(**dict(zip(self._specs, tensors, strict=True)))
            return [found[name] for name in self.outputs.keys]

        made, _ = tf2onnx.convert.from_function(tf.function(called), specs, opset=OPSET)
        sides = [each.name for each in inputs], [each.name for each in outputs]
        onnx.save(_named(made, *sides, is_single=self._single), path)


def _signature(loaded: Any) -> tuple[str, Any]:
    found = dict(loaded.signatures)
    if not found:
        raise Unsuited("it has no signature: save it with signatures={'serving_default': …}")
    if _USUAL in found:
        return _USUAL, found[_USUAL]
    if len(found) > 1:
        raise Unsuited(f"it has the signatures {', '.join(sorted(found))}: name one '{_USUAL}'")
    return next(iter(found.items()))


def _field(name: str, spec: Any) -> TensorField:
    if spec.dtype == tf.string or not spec.dtype.is_numpy_compatible:
        raise Unsuited(f"input '{name}' is {spec.dtype.name}: package it as framework 'custom' (BYOP)")
    if spec.shape.rank is None or spec.shape.rank < 1 or spec.shape[0] not in (None, 1):
        raise Unsuited(f"input '{name}' has shape {spec.shape}: its first axis must be the rows")
    return TensorField(name, spec.dtype.name, tuple(-1 if size is None else int(size) for size in spec.shape[1:]))


def _named(model: Any, inputs: list[str], outputs: list[str], *, is_single: bool) -> Any:
    """The graph with the fields' names; the rows are `N`, or one."""
    graph = model.graph
    old = [each.name for each in (*graph.input, *graph.output)]
    new = dict(zip(old, (*inputs, *outputs), strict=True))
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = new.get(name, f"inner/{name}" if name in (*inputs, *outputs) else name)
    for value in (*graph.input, *graph.output):
        value.name = new[value.name]
        rows = value.type.tensor_type.shape.dim[0]
        if is_single:
            rows.dim_value = 1
        else:
            rows.dim_param = "N"
    model.ir_version = IR
    onnx.checker.check_model(model)
    return model


def versions() -> dict[str, str]:
    """What the answers depend on."""
    return {"tensorflow": str(tf.__version__)}
