"""What of a graph can be quantized, and what a quantized one keeps of the original."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx

from ..fields import Unsuited, line

OLDEST_OPSET = 13  # the first whose DequantizeLinear has a scale for each channel
LARGEST_BYTES = 2 << 30  # of a protobuf message

# what is worth it: operators that multiply with weights. Source: onnxruntime 1.31's registry of dynamic quantization;
# Conv is left out there, whose integer kernel is slower than that of floats (docs/decisions/0015).
DYNAMIC = ("MatMul", "Gemm", "LSTM", "Attention")
STATIC = ("Conv", "ConvTranspose", "Gemm", "MatMul")
KINDS = {"dynamic": DYNAMIC, "static": STATIC}
_PLACES = {"dynamic": slice(1, 2), "static": slice(2)}  # of a node's inputs that the quantizer takes as weights
_INTEGER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_PLAIN_DOMAINS = ("", "ai.onnx")


def opened(path: str) -> onnx.ModelProto:
    """Load a model with its weights. Raises Unsuited for what does not load, is too old or is integers already."""
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf and onnx raise anything for a damaged file
        raise Unsuited(f"it does not load: {type(error).__name__}: {line(error)}") from error
    opset = max((each.version for each in model.opset_import if each.domain in _PLAIN_DOMAINS), default=0)
    if opset < OLDEST_OPSET:
        raise Unsuited(f"it uses opset {opset} of ai.onnx: quantization needs {OLDEST_OPSET} or newer, export it again")
    if is_quantized(model):
        found = next(node.op_type for node in model.graph.node if _is_integer(node))
        raise Unsuited(f"it is quantized already, it has {found}: remove optimize")
    return model


def candidates(model: onnx.ModelProto, quantize: str) -> Counter[str]:
    """How many nodes have weights of 32-bit floats that can be quantized so, by kind. None of them is one any more once
    it is: what the quantizer leaves keeps its weights.
    """
    floats = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
    weighed = (node for node in model.graph.node if not floats.isdisjoint(list(node.input)[_PLACES[quantize]]))
    return Counter(node.op_type for node in weighed if node.op_type in KINDS[quantize])


def check_worth(model: onnx.ModelProto, quantize: str) -> Counter[str]:
    """The candidates. Raises Unsuited where there are none, with what the graph has instead."""
    found = candidates(model, quantize)
    if found:
        return found
    others = {"dynamic": "static", "static": "dynamic"}[quantize]
    suits_other = bool(candidates(model, others))
    has = ", ".join(sorted({node.op_type for node in model.graph.node})[:8])
    hint = f'use quantize = "{others}"' if suits_other else "remove optimize"
    raise Unsuited(
        f"it has nothing to quantize: '{quantize}' is for {', '.join(KINDS[quantize])} with weights of 32-bit floats, "
        f"it has {has}: {hint}"
    )


def flatten_biases(model: onnx.ModelProto) -> None:
    """Make a Gemm's bias of one row (1, n) one of n numbers, which is the same: the quantizer takes no other."""
    met = [
        (name, node.op_type == "Gemm" and at == 2) for node in model.graph.node for at, name in enumerate(node.input)
    ]
    shared = {name for name, is_bias in met if not is_bias} | {each.name for each in model.graph.output}
    biases = {name for name, is_bias in met if is_bias} - shared
    for each in model.graph.initializer:
        if each.name in biases and len(each.dims) == 2 and each.dims[0] == 1:
            del each.dims[0]


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a model has operators on integers."""
    return any(_is_integer(node) for node in model.graph.node)


def plainly(model: onnx.ModelProto, original: onnx.ModelProto) -> bytes:
    """The bytes of a quantized model: what the quantizer says of itself and guessed of shapes is left out, what the
    original says of itself is kept.
    """
    used = {node.domain for node in _nodes(model.graph)}
    kept = [each for each in model.opset_import if each.domain in used or each.domain in _PLAIN_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda each: each.domain))
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    model.graph.name, model.doc_string = original.graph.name, original.doc_string
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type in _INTEGER or node.op_type.startswith(("QLinear", "QGemm", "DynamicQuantize", "QAttention"))


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)
