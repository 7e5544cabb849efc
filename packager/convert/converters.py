"""Which converter makes the graph of a model, and what of its outputs a field is."""

from __future__ import annotations

import copy
import math
import os
import traceback
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from .fields import Field, Unsuited, line
from .original import Original


def convert(path: str, original: Original, fields: List[Field], outputs: List[Field], strategy: str) -> Optional[str]:
    """Write the converted model to `path`; returns why there is none."""
    try:
        from .graph import dressed

        model, missing = _graph_of(original, fields, strategy)
        made = dressed(model, original.layout, fields, outputs, _sources(model, original.methods()), missing)
        with open(path, "wb") as file:
            file.write(made.SerializeToString(deterministic=True))
    except Exception as error:  # whatever a converter raises is a reason, not a fault of ours
        if os.environ.get("EDGEPACK_DEBUG"):
            traceback.print_exc()
        return line(error) if isinstance(error, Unsuited) else "%s: %s" % (type(error).__name__, line(error))
    return None


def _graph_of(original: Original, fields: List[Field], strategy: str) -> Tuple[Any, Optional[float]]:
    """The graph, and the number that stands for a missing value in its input."""
    from . import from_sklearn

    model = original.model
    width = fields[0].size if original.layout == "matrix" else len(fields)
    own = _own_converter(model)
    if own is not None:
        if original.library == "xgboost" and strategy == "double":
            raise Unsuited("its trees compare 32-bit floats: a wider input changes nothing")
        return own.converted(model, width or 1), _missing_value(model)
    steps = getattr(model, "steps", None)
    own = _own_converter(steps[-1][1]) if isinstance(steps, list) and len(steps) > 1 else None
    if own is None or not isinstance(steps, list):
        return from_sklearn.converted(model, original.layout, fields, strategy), None
    before, last = copy.copy(model), steps[-1][1]
    before.steps = steps[:-1]
    graph = from_sklearn.converted(before, original.layout, fields, strategy)
    return _joined(graph, own.converted(last, int(last.n_features_in_)), _missing_value(last)), None


def _own_converter(model: Any) -> Any:
    """Our converter of an estimator, None where it is another library's to convert."""
    from . import from_hist_boosting, from_lightgbm, from_xgboost

    library = type(model).__module__.partition(".")[0]
    if from_hist_boosting.is_hist_boosting(model):
        return from_hist_boosting
    return {"xgboost": from_xgboost, "lightgbm": from_lightgbm}.get(library)


def _missing_value(model: Any) -> Optional[float]:
    """The number that an estimator takes for a missing value, None for NaN alone."""
    value = getattr(model, "missing", None)
    return None if not isinstance(value, (int, float)) or math.isnan(value) else float(value)


def _joined(before: Any, last: Any, missing: Optional[float]) -> Any:
    """Our own graph of the last step, behind what skl2onnx made of the others."""
    from onnx import compose, helper, numpy_helper

    last = compose.add_prefix(last, "last/")
    graph, taken = before.graph, last.graph.input[0]
    kind = taken.type.tensor_type.elem_type
    nodes = [helper.make_node("Cast", [graph.output[0].name], ["joint"], to=kind)]
    if missing is not None:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        for name, value in (("joint-missing", missing), ("joint-nan", math.nan)):
            graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        nodes.append(helper.make_node("Equal", ["joint", "joint-missing"], ["is-missing"]))
        nodes.append(helper.make_node("Where", ["is-missing", "joint-nan", "joint"], [taken.name]))
    else:
        nodes.append(helper.make_node("Identity", ["joint"], [taken.name]))
    graph.node.extend([*nodes, *last.graph.node])
    graph.initializer.extend(last.graph.initializer)
    del graph.output[:]
    graph.output.extend(last.graph.output)
    known = {entry.domain for entry in before.opset_import}
    before.opset_import.extend(entry for entry in last.opset_import if entry.domain not in known)
    return before


def _sources(model: Any, methods: Dict[str, str]) -> Dict[str, str]:
    """Which of the converter's outputs a field is: the answer comes first, probabilities second."""
    names = [value.name for value in model.graph.output]
    found = {}
    for field, method in methods.items():
        at = 1 if method == "predict_proba" else 0
        if at >= len(names):
            raise Unsuited("the converter gives no %s" % field)
        found[field] = names[at]
    return found
