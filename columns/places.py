"""Where a body keeps the numbers that a decoder finds in it, found by trying the decoder out.

As in `columns.arrow_layout`, a body that differs from a valid one in nothing but such bytes is as valid: any bit
pattern is a number. Here nothing is known of the format: a place is proven by other numbers that come out when their
bytes are put in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgepack.errors import BadInput

_OTHERS = bytes(range(255, -1, -1))  # for each byte another

Array = np.ndarray[Any, np.dtype[Any]]
Decode = Callable[[bytes], Mapping[str, Array]]
Places = dict[str, tuple[int, int]]  # by name: from, up to


def places_of(body: bytes, arrays: Mapping[str, Array], decode: Decode) -> Places | None:
    """The places of these arrays, which `decode` made of the body; None where one of them has none of its own.

    An array that comes twice in the body, as one of zeros may, has none for now: another body may show it.
    """
    places: Places = {}
    other = bytearray(body)
    for name, array in arrays.items():
        data = array.tobytes()
        begin = body.find(data)
        if array.dtype.kind not in "iuf" or not data or begin < 0 or body.find(data, begin + 1) >= 0:
            return None
        places[name] = begin, begin + len(data)
        other[begin : begin + len(data)] = data.translate(_OTHERS)
    return places if _are_read(bytes(other), arrays, places, decode) else None


def _are_read(other: bytes, arrays: Mapping[str, Array], places: Places, decode: Decode) -> bool:
    """Whether a body with other bytes in these places gives arrays of these very bytes."""
    try:
        found = decode(other)
    except BadInput:
        return False
    for name, (begin, stop) in places.items():
        array = found[name]
        if (array.dtype, array.shape) != (arrays[name].dtype, arrays[name].shape):
            return False
        if array.tobytes() != other[begin:stop]:
            return False
    return found.keys() == places.keys()
