"""An ONNX model with buffers of its own for tensors of one shape.

`session.run` makes a name table, a value an input and an array an output for every request: two thirds of a small
model's time. Bound once to memory that stays, a run is a copy in, the model, a copy out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgepack.errors import RuntimeFailed

_PLAIN = "iuf"  # kinds of dtype that are nothing but their bytes

Buffer = bytes | bytearray | memoryview
Arrays = Mapping[str, np.ndarray]


class BoundRun:
    """Runs a session on tensors of fixed dtypes and shapes, given and taken as bytes. For one thread at a time."""

    def __init__(self, session: Any, inputs: Arrays, outputs: Arrays) -> None:
        """Bind to tensors like these, by the session's own names."""
        self._inputs = [np.zeros_like(array, order="C") for array in inputs.values()]
        self._outputs = [np.zeros_like(array, order="C") for array in outputs.values()]
        self._views = [array.data.cast("B") for array in self._inputs]
        self._binding = session.io_binding()
        for bind, names, arrays in (
            (self._binding.bind_input, inputs, self._inputs),
            (self._binding.bind_output, outputs, self._outputs),
        ):
            for name, array in zip(names, arrays, strict=True):
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._run = session.run_with_iobinding

    @staticmethod
    def suits(arrays: Arrays) -> bool:
        """Whether tensors are plain numbers, and at least one."""
        return all(array.dtype.kind in _PLAIN and array.size for array in arrays.values())

    def __call__(self, inputs: Sequence[Buffer]) -> list[bytes]:
        """The outputs for inputs of exactly the bound sizes, in the order in which they were bound.

        Raises RuntimeFailed where the model gives up, or wants to give another shape than before.
        """
        for view, data in zip(self._views, inputs, strict=True):
            view[:] = data
        try:
            self._run(self._binding)
        except Exception as error:  # onnxruntime's errors have no other root
            raise RuntimeFailed(f"the model does not run on the buffers it is bound to: {error}") from error
        return [array.tobytes() for array in self._outputs]
