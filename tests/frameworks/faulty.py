"""The child of a conversion with onnxmltools' converter in place of our own: `python faulty.py PACKAGER JOB`.

What it makes is known to be wrong for some models, without a word. The gate must see it.
"""

from __future__ import annotations

import sys
from typing import Any

sys.path.append(sys.argv[1])

from convert import from_lightgbm, from_xgboost, job


def xgboost_of_onnxmltools(model: Any, width: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    made = convert_xgboost(model, initial_types=[("X", FloatTensorType([None, width]))], target_opset=15)
    if type(model).__name__ == "Booster" and len(made.graph.output) == 2:
        del made.graph.output[0]  # a Booster answers with scores, not with a label
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    return made


from_xgboost.converted = xgboost_of_onnxmltools
from_lightgbm._is_forest = lambda booster, model: False
job.main(sys.argv[2])
