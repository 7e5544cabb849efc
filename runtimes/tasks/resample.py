"""Resizing of pictures bit for bit as Pillow does it, in numpy: a device needs no Pillow for it.

Each new pixel is a weighted mean of the old ones under a window, along one axis and then the other, rounded to whole
numbers after each, with weights of 22 fractional bits (Pillow, src/libImaging/Resample.c). The sums stay below 2^31.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_BITS = 22
_HALF, _ONE = 1 << (_BITS - 1), 1 << _BITS


@dataclass(frozen=True)
class Side:
    """One side of a picture in another size: how many pixels it gets, and which of them are made, from `first` on."""

    size: int
    first: int
    count: int

    @classmethod
    def of(cls, size: int, kept: int | None = None) -> Side:
        """A side of which so many pixels in the middle are kept, as `bundle.task.Crop` keeps them; all where None."""
        count = size if kept is None else min(size, kept)
        return cls(size, (size - count) // 2, count)


def resized(pixels: np.ndarray, height: Side, width: Side, name: str, *, steep_first: bool = False) -> np.ndarray:
    """A picture (height, width, colours) of uint8 in another size; `steep_first` as in `bundle.task.Resize`."""
    if name == "nearest":
        rows, columns = _nearest(pixels.shape[0], height), _nearest(pixels.shape[1], width)
        found: np.ndarray = pixels[rows][:, columns]
        return found
    lost_height, lost_width = pixels.shape[0] - height.size, pixels.shape[1] - width.size
    is_height_first = steep_first and lost_height > 0 and lost_height > 2 * lost_width
    for is_height in (is_height_first, not is_height_first):
        pixels = _along(pixels, height, name) if is_height else _across(pixels, width, name)
    return pixels


def _across(pixels: np.ndarray, side: Side, name: str) -> np.ndarray:
    """Resize the second axis."""
    found: np.ndarray = _along(pixels.transpose(1, 0, 2), side, name).transpose(1, 0, 2)
    return found


def _along(pixels: np.ndarray, side: Side, name: str) -> np.ndarray:
    """Resize the first axis."""
    if side.size == pixels.shape[0]:
        return pixels[side.first : side.first + side.count]
    places, weights = _weights(pixels.shape[0], side, name)
    flat = pixels.reshape(pixels.shape[0], -1)
    sums = np.full((side.count, flat.shape[1]), _HALF, dtype=np.int32)
    for place, weight in zip(places, weights, strict=True):
        sums += flat[place] * weight[:, np.newaxis]
    sums >>= _BITS
    found: np.ndarray = np.clip(sums, 0, 255, out=sums).astype(np.uint8)
    return found.reshape(side.count, *pixels.shape[1:])


@lru_cache(maxsize=8)  # of four sizes of pictures: those of long sides take megabytes
def _weights(old: int, side: Side, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Old pixels and their weights, whole numbers of which `_ONE` is 1: a row for each place in the window, in it one
    for each new pixel.
    """
    window, support = _WINDOWS[name]
    scale = old / side.size
    stretch = max(scale, 1.0)
    reach = support * stretch
    most = math.ceil(reach) * 2 + 1
    places, weights = np.zeros((side.count, most), dtype=np.intp), np.zeros((side.count, most), dtype=np.int32)
    for at in range(side.count):
        centre = (side.first + at + 0.5) * scale
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), old)
        seen = [window((place - centre + 0.5) * (1.0 / stretch)) for place in range(first, last)]
        places[at, : last - first] = range(first, last)
        weights[at, : last - first] = _whole(seen)
    return places.T.copy(), weights.T.copy()


def _whole(seen: list[float]) -> list[int]:
    """Weights that add up to `_ONE`, each rounded."""
    total = _added(seen)
    shares = [(weight / total if total else weight) * _ONE for weight in seen]
    return [int(share - 0.5) if share < 0 else int(share + 0.5) for share in shares]


def _added(values: list[float]) -> float:
    """One after another, as C adds them."""
    total = 0.0
    for value in values:
        total += value
    return total


def _nearest(old: int, side: Side) -> np.ndarray:
    """The old pixel under the middle of each new one; the places are added up one after another, as C does it."""
    steps = np.full(side.first + side.count, old / side.size)
    steps[0] *= 0.5
    places: np.ndarray = np.minimum(np.add.accumulate(steps)[side.first :].astype(np.intp), old - 1)
    return places


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _hamming(x: float) -> float:
    x = abs(x)
    if x == 0.0:
        return 1.0
    return 0.0 if x >= 1.0 else math.sin(x * math.pi) / (x * math.pi) * (0.54 + 0.46 * math.cos(x * math.pi))


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


_WINDOWS: dict[str, tuple[Callable[[float], float], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
