"""`TaskSpec`: what a native step does before and after its network, as data.

The network of a saved pipeline answers token numbers or scaled pixels with scores. What makes it a task is said here
and done by `runtimes/tasks/`; the tokenizer lies beside the network as `tokenizer.json`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

NETWORK, TOKENIZER = "model.onnx", "tokenizer.json"  # files in the folder of a step with a task

Tasks = Literal[
    "text-classification",
    "feature-extraction",
    "zero-shot-classification",
    "question-answering",
    "image-classification",
]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class Resize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="resize"):
    """To `height` and `width` pixels; with a width of 0 the shorter edge gets `height`, and the shape stays.

    `steep_first`: what loses more than twice as much height as width loses its height first, as from Pillow 13 on.
    """

    height: int
    width: int
    filter: Filter
    steep_first: bool = False


class Crop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="crop"):
    """The middle of a picture; what it lacks is black."""

    height: int
    width: int


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="scale"):
    """Each value times a factor."""

    factor: float


class Normalize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="normalize"):
    """Each colour less its mean, divided by its deviation."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PictureStep = Resize | Crop | Scale | Normalize


class TextSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts become tokens. `most` is how many the network takes (0: any number), `cut_at` to how many a task that
    cuts texts off does so (0: never).
    """

    most: int = 0
    cut_at: int = 0


class Answering(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a context is read: in windows of `length` tokens; the token `mark` stands for no answer (-1: none does)."""

    length: int = 384
    mark: int = -1


class TaskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task around a network. `takes` and `gives` are the network's own tensors as types of one row."""

    name: Tasks
    takes: dict[str, str]
    gives: dict[str, str]
    labels: tuple[str, ...] = ()
    scores: Literal["softmax", "sigmoid", "none"] = "softmax"  # where a request does not say
    text: TextSpec | None = None
    picture: tuple[PictureStep, ...] = ()
    entailment: int = -1  # of zero-shot-classification: the label that says that a text implies another
    answering: Answering | None = None  # of question-answering
