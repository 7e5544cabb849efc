"""The type of what goes in and comes out of users' code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

InferenceData = dict[str, np.ndarray]  # name of a field → its rows
"""One array a field; the first axis is the batch."""

PythonStep = Callable[[InferenceData], Any]
