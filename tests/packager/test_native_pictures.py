"""Native tasks of pictures: resizing as Pillow does it, the steps of image processors, and classification."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.task import Crop, Normalize, Resize, Scale
from edgepack.errors import BadInput
from runtimes.tasks import TaskRuntime, load
from runtimes.tasks.picture import tensor_of
from runtimes.tasks.resample import Side, resized
from tests.packager.tasks import LABELS, folder_of, picture_network, picture_task, task_step

IMAGE = "list<list<list<uint8>[3]>>"
SIZES = (
    *(((48, 64), (32, 32)), ((17, 90), (40, 31)), ((200, 31), (24, 24)), ((5, 4), (33, 70))),
    *(((64, 48), (64, 20)), ((30, 30), (7, 30)), ((115, 61), (2, 58)), ((3, 2), (1, 1))),
)
# what Pillow made of the pictures below: sha256 of all bytes, its beginning; 13.0.0, then 11.3.0
PILLOW = {
    "nearest": ("51b118cbc7b935f0", "51b118cbc7b935f0"),
    "lanczos": ("5118bcd571391161", "adb67b635aee1d54"),
    "bilinear": ("5d4f5a9ba09e481b", "28cb5d31b72c595b"),
    "bicubic": ("29c9fa2ee1fb1d9e", "47433a15a5f1b314"),
    "box": ("249b93df8ec6acee", "5606d7bbcf87dd17"),
    "hamming": ("825de193a4252ea3", "dd8fef7bc49f97e1"),
}


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("steep_first", [True, False])
def test_pictures_are_resized_bit_for_bit_as_pillow_does_it(name: str, steep_first: bool) -> None:
    draw, digest = np.random.RandomState(7), hashlib.sha256()
    for (height, width), size in SIZES:
        pixels = draw.randint(0, 256, (height, width, 3)).astype(np.uint8)
        digest.update(resized(pixels, Side.of(size[0]), Side.of(size[1]), name, steep_first=steep_first).tobytes())
    assert digest.hexdigest()[:16] == PILLOW[name][not steep_first]


@given(st.sampled_from(sorted(PILLOW)), st.integers(0, 255), st.tuples(*[st.integers(1, 40)] * 4))
@settings(max_examples=60, deadline=None)
def test_one_colour_stays_that_colour_in_every_size(name: str, value: int, sizes: tuple[int, ...]) -> None:
    pixels = np.full((*sizes[:2], 3), value, np.uint8)
    found = resized(pixels, Side.of(sizes[2]), Side.of(sizes[3]), name)
    assert found.shape == (*sizes[2:], 3) and (found == value).all()


def test_a_picture_of_the_size_asked_for_is_left_as_it_is() -> None:
    pixels = np.random.RandomState(1).randint(0, 256, (9, 7, 3)).astype(np.uint8)
    assert (tensor_of(pixels, "x", [Resize(9, 7, "bicubic")]) == pixels.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    "shape, edge, size", [((40, 80), 20, (20, 40)), ((81, 40), 20, (40, 20)), ((7, 7), 20, (20, 20))]
)
def test_by_its_shorter_edge_a_picture_keeps_its_shape(shape: Any, edge: int, size: Any) -> None:
    assert tensor_of(np.zeros((*shape, 3), int), "x", [Resize(edge, 0, "bilinear")]).shape == (3, *size)


def test_the_middle_of_a_picture_is_cut_out() -> None:
    pixels = np.arange(6 * 7 * 3).reshape(6, 7, 3)
    np.testing.assert_array_equal(tensor_of(pixels, "x", []), pixels.transpose(2, 0, 1))
    found = tensor_of(pixels, "x", [Crop(2, 3)])
    np.testing.assert_array_equal(found, pixels[2:4, 2:5].transpose(2, 0, 1))


@given(*[st.integers(4, 12)] * 4)
@settings(max_examples=40, deadline=None)
def test_what_a_picture_lacks_is_black_around_it(height: int, width: int, tall: int, wide: int) -> None:
    found = tensor_of(np.full((height, width, 3), 9), "x", [Crop(tall, wide)])
    assert found.shape == (3, tall, wide)
    assert (found == 9).sum() == 3 * min(height, tall) * min(width, wide)


@given(st.sampled_from(sorted(PILLOW)), st.booleans(), st.booleans(), st.tuples(*[st.integers(4, 30)] * 6))
@settings(max_examples=80, deadline=None)
def test_only_what_is_kept_of_a_resized_picture_is_made_and_it_is_the_same(
    name: Any, steep_first: bool, by_edge: bool, sizes: tuple[int, ...]
) -> None:
    height, width, tall, wide, kept_tall, kept_wide = sizes
    pixels = np.random.RandomState(height * width).randint(0, 256, (height, width, 3))
    resize, crop = Resize(tall, 0 if by_edge else wide, name, steep_first), Crop(kept_tall, kept_wide)
    whole = tensor_of(pixels, "x", [resize]).transpose(1, 2, 0).astype(int)
    np.testing.assert_array_equal(tensor_of(pixels, "x", [resize, crop]), tensor_of(whole, "x", [crop]))


@pytest.mark.parametrize("steep_first", [True, False])
@pytest.mark.parametrize("shape", [(2, 2000), (2000, 2)])
def test_of_a_long_and_narrow_picture_no_more_is_made_than_is_kept(shape: tuple[int, int], steep_first: bool) -> None:
    made = np.zeros((*shape, 3), np.uint8)
    tracemalloc.start()
    try:
        found = tensor_of(made, "x", [Resize(224, 0, "bicubic", steep_first), Crop(224, 224)])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.shape == (3, 224, 224) and most < 64 << 20


@pytest.mark.parametrize(
    "shape, steps",
    [
        ((2, 2000), [Resize(224, 0, "bicubic")]),
        ((2, 65_536), [Resize(224, 0, "bicubic"), Crop(224, 224)]),
        ((65_535, 2), [Resize(224, 224, "nearest")]),
    ],
    ids=["nothing is cut off", "a side", "on the way"],
)
def test_a_picture_that_would_become_too_large_is_refused_by_field(shape: tuple[int, int], steps: Any) -> None:
    with pytest.raises(BadInput, match=r"^field 'image' is a picture of \d+ x \d+ pixels, which takes too much") as no:
        tensor_of(np.zeros((*shape, 3), np.uint8), "image", steps)
    assert no.value.field == "image"


def test_of_a_long_picture_the_middle_is_cut_out_before_black_is_put_around_it() -> None:
    tracemalloc.start()
    try:
        assert tensor_of(np.zeros((60_000, 2, 3), np.uint8), "x", [Crop(224, 224)]).shape == (3, 224, 224)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_colours_are_scaled_and_normalized_in_float32() -> None:
    pixels = np.random.RandomState(2).randint(0, 256, (5, 6, 3))
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.5, 0.125)
    found = tensor_of(pixels, "x", [Scale(1 / 255), Normalize(mean, std)])
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, ((pixels / 255 - mean) / std).transpose(2, 0, 1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "value, said",
    [
        ([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9]]], "is no picture: expected rows of equal length"),
        ([], "is no picture"),
        (np.zeros((4, 0, 3), int), "is no picture"),
        (np.zeros((4, 4, 4), int), "is no picture"),
        (np.zeros((4, 4), int), "is no picture"),
        (np.zeros((4, 4, 3)), "is no picture"),
        (np.full((4, 4, 3), 256), "has a pixel with 256: expected 0 to 255"),
        (np.full((4, 4, 3), -1), "has a pixel with -1: expected 0 to 255"),
        (np.zeros((3, 4, 3), int), "has 3 rows of pixels, which reads like a picture with its colours first"),
        (np.zeros((1, 4, 3), int), "has 1 rows of pixels"),
    ],
)
def test_what_is_no_picture_is_refused_by_field(value: Any, said: str) -> None:
    with pytest.raises(BadInput, match=f"^field 'inputs' {said}") as refused:
        tensor_of(value, "inputs", [])
    assert refused.value.field == "inputs" and "\n" not in str(refused.value)


@pytest.fixture
def classifier(tmp_path: Path) -> TaskRuntime:
    step = task_step(picture_task(), {"inputs": IMAGE, "top_k": "int64?"})
    return load(folder_of(tmp_path, picture_network()), step)


def test_pictures_of_several_sizes_are_classified_in_one_request(classifier: TaskRuntime) -> None:
    colours = ((200, 10, 10), (10, 200, 10), (10, 10, 200), (10, 20, 200))
    pictures = np.empty(4, dtype=object)
    for at, (colour, size) in enumerate(zip(colours, ((8, 9), (4, 4), (8, 9), (17, 2)), strict=True)):
        pictures[at] = np.broadcast_to(np.array(colour), (*size, 3)).tolist()
    found = classifier.infer({"inputs": pictures, "top_k": np.array([1, 2, 3, None], dtype=object)}, 4)
    assert [each[0] for each in found["label"]] == ["low", "mid", "high", "high"]
    assert [len(each) for each in found["label"]] == [1, 2, 3, 3]
    logits = np.array(colours[2]) / 255
    np.testing.assert_allclose(found["score"][2][0], np.exp(logits[2]) / np.exp(logits).sum(), rtol=1e-6)


def test_a_picture_may_be_a_tensor_of_small_integers(tmp_path: Path) -> None:
    step = task_step(picture_task(), {"inputs": "list<list<list<uint8>[3]>[8]>[6]"})
    runtime = load(folder_of(tmp_path, picture_network()), step)
    found = runtime.infer({"inputs": np.full((20, 6, 8, 3), (1, 2, 9), np.uint8)}, 20)
    assert found["label"].tolist() == [["high", "mid", "low"]] * 20, "more rows than run at once"
    assert set(LABELS) == set(found["label"][0])
