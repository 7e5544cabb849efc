"""Pictures to the tensor of a network: the steps of an image processor on arrays of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bundle.task import Crop, Normalize, PictureStep, Resize, Scale
from edgepack.errors import BadInput
from runtimes.tasks.resample import Side, resized

_COLOURS = 3
MOST_SIDE = 65_535  # pixels, as of a JPEG: each weighs in the resizing
MOST_PIXELS = 1 << 23  # of a picture on its way to another size, which takes some 30 bytes for each
_CHANNELS = (1, 3)  # a picture of so many rows is one with its colours first to the original: it cannot tell


def tensor_of(value: Any, name: str, steps: Sequence[PictureStep]) -> np.ndarray:
    """A picture, rows of pixels of three numbers, as float32 with the colours first.

    Raises BadInput that names the field for what is no picture, and for one that is too long and narrow.
    """
    pixels = _pixels(value, name)
    for step, next_step in zip(steps, (*steps[1:], None), strict=False):
        if isinstance(step, Resize):
            pixels = _resize(pixels, step, next_step if isinstance(next_step, Crop) else None, name)
        else:
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


def _resize(pixels: np.ndarray, step: Resize, crop: Crop | None, name: str) -> np.ndarray:
    """In another size, of which only what the next step keeps is made."""
    sizes = (step.height, step.width) if step.width else _by_shorter_edge(pixels.shape, step.height)
    kept = (crop.height, crop.width) if crop else (None, None)
    height, width = Side.of(sizes[0], kept[0]), Side.of(sizes[1], kept[1])
    old_height, old_width = pixels.shape[:2]
    # one axis is resized after the other, in an order that depends on the sizes
    most = max(height.count * width.count, height.count * old_width, old_height * width.count)
    if most > MOST_PIXELS or max(old_height, old_width) > MOST_SIDE:
        raise BadInput(
            f"field '{name}' is a picture of {old_height} x {old_width} pixels, which takes too much memory to resize "
            f"to {sizes[0]} x {sizes[1]}: give a part of it, or a smaller one",
            field=name,
        )
    return resized(pixels, height, width, step.filter, steep_first=step.steep_first)


def _by_shorter_edge(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    height, width = shape[:2]
    longer = int(size * max(height, width) / min(height, width))
    return (longer, size) if width <= height else (size, longer)


def _crop(pixels: np.ndarray, step: Crop) -> np.ndarray:
    """The middle; where a picture is too small, black stands around it."""
    height, width = Side.of(pixels.shape[0], step.height), Side.of(pixels.shape[1], step.width)
    kept = pixels[height.first : height.first + height.count, width.first : width.first + width.count]
    if kept.shape[:2] == (step.height, step.width):
        return kept
    above, before = -((height.count - step.height) // 2), -((width.count - step.width) // 2)
    padded = np.zeros((step.height, step.width, pixels.shape[2]), pixels.dtype)
    padded[above : above + height.count, before : before + width.count] = kept
    return padded


def _scale(pixels: np.ndarray, step: Scale) -> np.ndarray:
    found: np.ndarray = (pixels.astype(np.float64) * step.factor).astype(np.float32)
    return found


def _normalize(pixels: np.ndarray, step: Normalize) -> np.ndarray:
    mean, std = (np.array(each, dtype=np.float32) for each in (step.mean, step.std))
    found: np.ndarray = (pixels.astype(np.float32) - mean) / std
    return found


_STEPS: dict[type, Callable[[np.ndarray, Any], np.ndarray]] = {
    Crop: _crop,
    Scale: _scale,
    Normalize: _normalize,
}
