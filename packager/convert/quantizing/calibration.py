"""Calibration: which numbers each tensor of a graph holds while it answers rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from ..fields import Unsuited, line

_DIGITS = 3  # of a range: the last bits of what a machine computes then seldom decide the bytes of a model


class Rows(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
    """Rows one after another as a model takes them: alone, under the names of its inputs.

    `names` are those of the columns, in the file's order; None where that is the order of the model's inputs.
    """

    def __init__(self, path: str, names: list[str] | None, graph: Any) -> None:
        weights = {each.name for each in graph.initializer}
        self._inputs = [each for each in graph.input if each.name not in weights]
        with np.load(path, allow_pickle=False) as found:
            self._arrays = {name: found[name] for name in found.files}
        self._at = {name: at for at, name in enumerate(names or [each.name for each in self._inputs])}
        self.count = len(self._arrays) // max(1, len(self._inputs))
        self._left = self._fed()

    def get_next(self) -> dict[str, Any] | None:
        """The next row, None behind the last."""
        return next(self._left, None)

    def _fed(self) -> Iterator[dict[str, Any]]:
        for row in range(self.count):
            yield {each.name: self._tensor(self._at[each.name], row, each) for each in self._inputs}

    def _tensor(self, at: int, row: int, value: Any) -> Any:
        """A row as the tensor of an input: behind an axis of one row, where the input has that axis."""
        array = self._arrays[f"in{at}-{row}"]
        array = array.astype(object) if array.dtype.kind == "U" else array
        return array if array.ndim == len(value.type.tensor_type.shape.dim) else array[np.newaxis]


def calibrated(path: Path, rows: str, names: list[str] | None, kinds: list[str]) -> Any:
    """The range of each tensor over the rows, rounded outwards. Raises Unsuited where the model does not answer."""
    try:
        calibrator = create_calibrator(
            path,
            kinds,
            augmented_model_path=f"{path}.augmented",
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Rows(rows, names, onnx.load(path).graph))
        found = calibrator.compute_data()
    except Exception as error:  # onnxruntime's errors have no other root
        raise Unsuited(f"it cannot be calibrated: {type(error).__name__}: {line(error)}") from error
    ranges = {name: _outwards(*each.range_value) for name, each in found.items()}
    return TensorsData(CalibrationMethod.MinMax, ranges)


def _outwards(lowest: Any, highest: Any) -> tuple[Any, Any]:
    """A range with few digits that holds another."""
    return -_up(-float(np.min(lowest))), _up(float(np.max(highest)))


def _up(number: float) -> Any:
    if not number or not np.isfinite(number):
        return np.float32(number)
    step = 10.0 ** (np.floor(np.log10(abs(number))) + 1 - _DIGITS)
    return np.float32(np.ceil(number / step) * step)
