"""Pictures to the tensor of a network: the steps of an image processor on arrays of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bundle.task import Crop, Normalize, PictureStep, Resize, Scale
from edgepack.errors import BadInput
from runtimes.tasks.resample import resized

_COLOURS = 3
_CHANNELS = (1, 3)  # a picture of so many rows is one with its colours first to the original: it cannot tell


def tensor_of(value: Any, name: str, steps: Sequence[PictureStep]) -> np.ndarray:
    """A picture, rows of pixels of three numbers, as float32 with the colours first.

    Raises BadInput that names the field for what is no picture.
    """
    pixels = _pixels(value, name)
    for step in steps:
        pixels = _STEPS[type(step)](pixels, step)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def _pixels(value: Any, name: str) -> np.ndarray:
    try:
        pixels = np.asarray(value)
    except ValueError:
        pixels = np.asarray(None)
    if pixels.ndim != _COLOURS or pixels.shape[2] != _COLOURS or not pixels.size or pixels.dtype.kind not in "iu":
        raise BadInput(
            f"field '{name}' is no picture: expected rows of equal length, of pixels of {_COLOURS} numbers", field=name
        )
    if pixels.shape[0] in _CHANNELS:
        raise BadInput(
            f"field '{name}' has {pixels.shape[0]} rows of pixels, which reads like a picture with its colours first: "
            "give it another height",
            field=name,
        )
    if pixels.min() < 0 or pixels.max() > 255:
        worst = pixels.max() if pixels.max() > 255 else pixels.min()
        raise BadInput(f"field '{name}' has a pixel with {worst}: expected 0 to 255", field=name)
    return pixels.astype(np.uint8)


def _resize(pixels: np.ndarray, step: Resize) -> np.ndarray:
    height, width = (step.height, step.width) if step.width else _by_shorter_edge(pixels.shape, step.height)
    return resized(pixels, height, width, step.filter, steep_first=step.steep_first)


def _by_shorter_edge(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    height, width = shape[:2]
    longer = int(size * max(height, width) / min(height, width))
    return (longer, size) if width <= height else (size, longer)


def _crop(pixels: np.ndarray, step: Crop) -> np.ndarray:
    """The middle; where a picture is too small, black stands around it."""
    height, width = pixels.shape[:2]
    top, left = (height - step.height) // 2, (width - step.width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + step.height, left : left + step.width]
    tall, wide = max(step.height, height), max(step.width, width)
    above, before = -((height - tall) // 2), -((width - wide) // 2)
    padded = np.zeros((tall, wide, pixels.shape[2]), pixels.dtype)
    padded[above : above + height, before : before + width] = pixels
    top, left = top + above, left + before
    return padded[max(0, top) : top + step.height, max(0, left) : left + step.width]


def _scale(pixels: np.ndarray, step: Scale) -> np.ndarray:
    found: np.ndarray = (pixels.astype(np.float64) * step.factor).astype(np.float32)
    return found


def _normalize(pixels: np.ndarray, step: Normalize) -> np.ndarray:
    mean, std = (np.array(each, dtype=np.float32) for each in (step.mean, step.std))
    found: np.ndarray = (pixels.astype(np.float32) - mean) / std
    return found


_STEPS: dict[type, Callable[[np.ndarray, Any], np.ndarray]] = {
    Resize: _resize,
    Crop: _crop,
    Scale: _scale,
    Normalize: _normalize,
}
