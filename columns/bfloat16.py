"""bfloat16: the upper half of a float32. numpy has no such type: here its values are float32, which hold them all."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_QUIET_NAN = np.uint16(0x7FC0)


def from_bits(bits: Array) -> Array:
    """The float32 values of 16-bit patterns (uint16), of the same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bits(values: Array) -> Array:
    """The 16-bit patterns nearest to float32 values; ties go to the even one, a NaN stays a NaN."""
    wide = np.ascontiguousarray(values, dtype=np.float32)
    bits = wide.reshape(-1).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded[np.isnan(wide.reshape(-1))] = _QUIET_NAN
    return rounded.reshape(np.shape(values))  # of a scalar: `ascontiguousarray` makes an axis
