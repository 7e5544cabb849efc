"""LightGBM to ONNX with onnxmltools; thresholds are mended on the way, the declared shape of labels afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .fields import Unsuited
from .mends import mended_converters

_OPSET = 15  # the newest that onnxmltools writes


def converted(model: Any, width: int) -> Any:
    """Convert an estimator or a Booster with one matrix as input."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = getattr(model, "booster_", model)
    if _is_forest(booster, model):
        raise Unsuited("boosting type 'rf' averages its trees, the converter sums them")
    with mended_converters():
        made = convert_lightgbm(
            model,
            initial_types=[("X", FloatTensorType([None, width]))],
            target_opset=_OPSET,
            **({"zipmap": False} if _has_option(convert_lightgbm, "zipmap") else {}),
        )
    if not hasattr(model, "predict_proba") and len(made.graph.output) == 2:
        _as_booster(made.graph, booster)
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    return made


def _as_booster(graph: Any, booster: Any) -> None:
    """A bare Booster answers with scores where the converter makes a classifier of it: one for two classes."""
    scores = graph.output[1].name
    del graph.output[:]
    if booster.num_model_per_iteration() > 1:
        graph.output.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, None))
        return
    graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.int64), "second"))
    graph.node.append(helper.make_node("Gather", [scores, "second"], ["score-of-one"], axis=1))
    graph.output.append(helper.make_tensor_value_info("score-of-one", TensorProto.FLOAT, None))


def _is_forest(booster: Any, model: Any) -> bool:
    return getattr(model, "boosting_type", "") == "rf" or "average_output" in booster.model_to_string(num_iteration=1)


def _has_option(function: Any, name: str) -> bool:
    import inspect

    return name in inspect.signature(function).parameters
