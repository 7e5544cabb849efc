"""The child of a conversion with other libraries' converters in place of our own, unmended: `python faulty.py PACKAGER
JOB`.

What they make is known to be wrong for some models, without a word. The gate must see it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

sys.path.append(sys.argv[1])

from convert import from_hist_boosting, from_lightgbm, from_sklearn, from_xgboost, job


def xgboost_of_onnxmltools(model: Any, width: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    made = convert_xgboost(model, initial_types=[("X", FloatTensorType([None, width]))], target_opset=15)
    if type(model).__name__ == "Booster" and len(made.graph.output) == 2:
        del made.graph.output[0]  # a Booster answers with scores, not with a label
    return unshaped(made)


def lightgbm_of_onnxmltools(model: Any, width: int) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("X", FloatTensorType([None, width]))]
    return unshaped(convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=False))


def unshaped(made: Any) -> Any:
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    return made


@contextlib.contextmanager
def unmended() -> Iterator[None]:
    yield


from_xgboost.converted = xgboost_of_onnxmltools
from_lightgbm.converted = lightgbm_of_onnxmltools
from_hist_boosting.is_hist_boosting = lambda model: False
from_sklearn.mended_converters = unmended
job.main(sys.argv[2])
