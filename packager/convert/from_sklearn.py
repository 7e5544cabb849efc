"""scikit-learn to ONNX with skl2onnx, estimators of XGBoost and LightGBM in the middle of others included."""

from __future__ import annotations

import copy
from typing import Any, List

import numpy as np
from onnx import helper, numpy_helper

from .anatomy import takes_labels
from .fields import Field, Unsuited
from .graph import OPSETS
from .mends import mended_converters
from .trees import has_trees


def converted(model: Any, layout: str, fields: List[Field], strategy: str) -> Any:
    """Convert for a strategy: `float32` throughout, or `double` with a cast before the trees.

    Raises whatever the converter raises; the caller keeps it as the reason.
    """
    types = _types(model, layout, fields, strategy)
    made = _converted(_with_cast(model) if strategy == "double" else model, types)
    if type(_last(model)).__name__ in _VOTING and len(made.graph.output) == 2:
        _label_by_votes(made.graph, np.asarray(model.classes_))
    return made


def _converted(model: Any, types: Any) -> Any:
    from skl2onnx import convert_sklearn

    _register()
    model = _plainly_voting(model)
    options = {id(model): {"zipmap": False}} if _is_classifier(model) else None
    with mended_converters():
        try:
            return convert_sklearn(model, initial_types=types, options=options, target_opset=dict(OPSETS))
        except NameError:  # how skl2onnx says that a classifier without probabilities does not know the option
            return convert_sklearn(model, initial_types=types, target_opset=dict(OPSETS))


def _plainly_voting(model: Any) -> Any:
    """skl2onnx knows voting classifiers in one of two settings only, which differ in `transform` alone."""
    if type(model).__name__ != "VotingClassifier":
        return model
    made = copy.copy(model)
    made.flatten_transform = False
    return made


_VOTING = ("RandomForestClassifier", "ExtraTreesClassifier")
_VOTE_STEPS = float(2**19)  # a difference of less than one in so many is a draw: sums of 32 bits are not exact


def _last(model: Any) -> Any:
    steps = getattr(model, "steps", None)
    return _last(steps[-1][1]) if isinstance(steps, list) else model


def _label_by_votes(graph: Any, classes: Any) -> None:
    """The label of a forest from its probabilities: of classes with the same votes the first one, as the original
    does; the converter leaves that to the last bit of a sum.
    """
    votes = graph.output[1].name
    names = [str(each) for each in classes] if classes.dtype.kind in "OUS" else None
    kinds = np.array(names, dtype=object) if names else classes.astype(np.int64)
    graph.initializer.append(numpy_helper.from_array(kinds, "vote-classes"))
    graph.initializer.append(numpy_helper.from_array(np.array(_VOTE_STEPS, dtype=np.float32), "vote-steps"))
    graph.node.append(helper.make_node("Mul", [votes, "vote-steps"], ["vote-fine"]))
    graph.node.append(helper.make_node("Round", ["vote-fine"], ["vote-whole"]))
    graph.node.append(helper.make_node("ArgMax", ["vote-whole"], ["vote-first"], axis=1, keepdims=0))
    graph.node.append(helper.make_node("Gather", ["vote-classes", "vote-first"], ["vote-label"], axis=0))
    graph.output[0].name = "vote-label"
    graph.output[0].type.tensor_type.ClearField("shape")


def _types(model: Any, layout: str, fields: List[Field], strategy: str) -> Any:
    from skl2onnx.common import data_types as kinds

    number = kinds.DoubleTensorType if strategy == "double" else kinds.FloatTensorType
    if layout == "text":
        return [("text", kinds.StringTensorType([None, 1]))]
    if layout in ("matrix", "stack") or not _splits_columns(model):
        if any(field.scalar == "string" for field in fields):
            kind = kinds.StringTensorType
            if not all(field.scalar == "string" for field in fields):
                raise Unsuited("it takes numbers and strings without a ColumnTransformer that tells them apart")
        else:
            kind = kinds.Int64TensorType if takes_labels(model) and fields[0].dtype.kind in "iu" else number
        width = fields[0].size if layout == "matrix" else len(fields)
        return [("X", kind([None, width]))]
    integer = kinds.Int64TensorType
    return [
        (
            str(field.name),
            (
                kinds.StringTensorType
                if field.scalar == "string"
                else integer
                if field.dtype.kind in "iu"
                else kinds.BooleanTensorType
                if field.dtype.kind == "b"
                else number
            )([None, 1]),
        )
        for field in fields
    ]


def _splits_columns(model: Any) -> bool:
    steps = getattr(model, "steps", None)
    first = steps[0][1] if isinstance(steps, list) and steps else model
    if isinstance(getattr(first, "steps", None), list):
        return _splits_columns(first)
    return hasattr(first, "transformers_")


def _is_classifier(model: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(model)) and not hasattr(model, "transformers_")


def _with_cast(model: Any) -> Any:
    """A copy whose trees get 32-bit floats, as they make of their input themselves."""
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    cast = CastTransformer(dtype=np.float32)
    if not isinstance(getattr(model, "steps", None), list):
        return Pipeline([("cast", cast), ("model", model)]) if has_trees(model) else model
    last = model.steps[-1][1]
    if not has_trees(last):
        return model
    made = copy.copy(model)
    made.steps = [*model.steps[:-1], ("edgepack-cast", cast), model.steps[-1]]
    return made


def _register() -> None:
    """Teach skl2onnx the estimators of the two libraries, with onnxmltools' converters, for where they stand inside."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    try:
        import lightgbm
        import xgboost
    except ImportError:  # an environment for an old scikit-learn may lack one
        return
    classes = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    shapes = (calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes)
    for kind, alias, shape, convert, options in (
        (lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", shapes[0], convert_lightgbm, classes),
        (lightgbm.LGBMRegressor, "LightGbmLGBMRegressor", shapes[1], convert_lightgbm, {"split": None}),
        (xgboost.XGBClassifier, "XGBoostXGBClassifier", shapes[0], convert_xgboost, classes),
        (xgboost.XGBRegressor, "XGBoostXGBRegressor", shapes[1], convert_xgboost, None),
    ):
        update_registered_converter(kind, alias, shape, convert, options=options)
