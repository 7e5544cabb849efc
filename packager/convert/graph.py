"""Dresses a converted graph: the step's fields outside, the converter's own tensors inside.

Every tensor of the converter gets a prefix, so that no field's name meets one. Inputs are cast and put side by side as
the converter wants them; outputs are shaped and cast to what the fields say. Levels are those that every runtime of
the last years reads: IR 8, opset 17, ai.onnx.ml 3.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from .fields import Field, Unsuited

OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8
_INSIDE = "converted/"
_CODES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
    "bool": TensorProto.BOOL,
    **{
        "%sint%d" % (sign, bits): getattr(TensorProto, "%sINT%d" % (sign.upper(), bits))
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


def dressed(
    model: Any,
    layout: str,
    inputs: List[Field],
    outputs: List[Field],
    sources: Dict[str, str],
    missing: Optional[float] = None,
) -> Any:
    """The finished model. `sources` names the converter's output of each field; `missing` is a number that stands for
    a missing value beside NaN.
    """
    _set_locale(model.graph)
    inner = compose.add_prefix(model, _INSIDE)
    dress = _Dress(inner.graph, inputs, layout, missing)
    dress.enter()
    dress.leave(outputs, {name: _INSIDE + source for name, source in sources.items()})
    graph = helper.make_graph(
        [*dress.before, *inner.graph.node, *dress.after],
        "edgepack",
        dress.inputs,
        dress.outputs,
        [*inner.graph.initializer, *dress.constants],
    )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opsets[""] = max(opsets.get("", 13), 13)
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())],
        ir_version=IR_VERSION,
        producer_name="edgepack",
    )
    onnx.checker.check_model(made)
    return made


class _Dress:
    """Nodes before and after a graph, and the constants they need."""

    def __init__(self, graph: Any, fields: List[Field], layout: str, missing: Optional[float]) -> None:
        self.graph, self.fields, self.layout, self.missing = graph, fields, layout, missing
        self.before: List[Any] = []
        self.after: List[Any] = []
        self.inputs: List[Any] = []
        self.outputs: List[Any] = []
        self.constants: List[Any] = []

    def enter(self) -> None:
        """From the fields to the converter's inputs."""
        columns = []
        for at, field in enumerate(self.fields):
            shape = ["N"] if field.size is None else ["N", field.size if field.size > 0 else "M"]
            self.inputs.append(helper.make_tensor_value_info(field.name, _code(field), shape))
            columns.append(field.name if field.size is not None else self._upright(field.name, at))
        inner = list(self.graph.input)
        if len(inner) == 1 and len(columns) > 1:
            cast = [self._cast(name, field, inner[0]) for name, field in zip(columns, self.fields)]
            self._node("Concat", cast, "dress/matrix", axis=1)
            self._gap("dress/matrix", inner[0].name)
            return
        if len(inner) != len(columns):
            raise Unsuited("the converter made %d inputs of %d fields" % (len(inner), len(columns)))
        for name, field, value in zip(columns, self.fields, inner):
            self._gap(self._cast(name, field, value), value.name)

    def leave(self, outputs: List[Field], sources: Dict[str, str]) -> None:
        """From the converter's outputs to the fields."""
        if {field.name for field in outputs} & {field.name for field in self.fields}:
            raise Unsuited("a field is input and output under one name")
        for at, field in enumerate(outputs):
            shaped, shape = "dress/shaped%d" % at, "dress/shape%d" % at
            wanted = [-1] if field.size is None else [-1, field.size]
            self.constants.append(numpy_helper.from_array(np.array(wanted, dtype=np.int64), shape))
            self.after.append(helper.make_node("Reshape", [sources[field.name], shape], [shaped]))
            if field.scalar == "string":  # strings come only from string labels: a cast would be refused
                self.after.append(helper.make_node("Identity", [shaped], [field.name]))
            else:
                self.after.append(helper.make_node("Cast", [shaped], [field.name], to=_code(field)))
            axes: List[Any] = ["N"] if field.size is None else ["N", field.size]
            self.outputs.append(helper.make_tensor_value_info(field.name, _code(field), axes))

    def _upright(self, name: str, at: int) -> str:
        if not self.constants:
            self.constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "dress/one"))
        return self._node("Unsqueeze", [name, "dress/one"], "dress/column%d" % at)

    def _cast(self, name: str, field: Field, value: Any) -> str:
        wanted = value.type.tensor_type.elem_type
        if wanted == _code(field):
            return name
        if TensorProto.STRING in (wanted, _code(field)):
            raise Unsuited("field '%s' is %s, the model takes another type there" % (field.name, field.scalar))
        return self._node("Cast", [name], "dress/cast-%s" % field.name, to=wanted)

    def _gap(self, name: str, inner: str) -> None:
        """Connect, and write NaN where the number stands that means "missing"."""
        if self.missing is None:
            self._node("Identity", [name], inner)
            return
        self.constants.append(numpy_helper.from_array(np.array(self.missing, dtype=np.float32), "dress/missing"))
        self.constants.append(numpy_helper.from_array(np.array(np.nan, dtype=np.float32), "dress/nan"))
        self._node("Equal", [name, "dress/missing"], "dress/is-missing")
        self._node("Where", ["dress/is-missing", "dress/nan", name], inner)

    def _node(self, kind: str, names: List[str], result: str, **settings: Any) -> str:
        self.before.append(helper.make_node(kind, names, [result], **settings))
        return result


def _code(field: Field) -> int:
    name = {"float": "float32", "double": "float64"}.get(field.scalar, field.scalar)
    if name not in _CODES:
        raise Unsuited("field '%s' is %s, which a converted model cannot carry" % (field.name, field.scalar))
    return int(_CODES[name])


def _set_locale(graph: Any) -> None:
    """StringNormalizer without a locale asks the device for en_US and does not load where that is not installed."""
    for node in graph.node:
        if node.op_type == "StringNormalizer":
            kept = [each for each in node.attribute if each.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("locale", "C")])
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _set_locale(attribute.g)
