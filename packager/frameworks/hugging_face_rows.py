"""Rows that a pipeline is proven with: texts and pictures of all sorts, with each argument that it takes natively."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

import numpy as np

from columns.schema import Field, Schema
from columns.types import ListOf
from packager.frameworks.hugging_face_tasks import sure

_WORDS = ("the", "line", "stopped", "at", "noon", "because", "a", "bearing", "of", "press", "4", "was", "warm,", "why")
_LENGTHS = (40, 90, 180, 360, 700, 1500)  # words; what is too long for the original is left out
TEXTS = (
    "The line stopped at noon.",
    "A bearing of press 4 is WARM, and it is loud!",
    "all good",
    "",
    " ",
    "a",
    "  two  spaces\tand\na line break  ",
    "naïve café, Ärger über Öl — “quoted” … 3½ µm",
    "prüfen: e\u0301 and é, ﬁ, Ⅳ, ½",  # what Unicode writes in two ways
    "模型在边缘设备上运行 机械の異音",
    "الآلة متوقفة",
    "привод шумит",
    "👩🏽‍🔧 fixed it 🎉",
    "[CLS] and [SEP] [MASK] <s> </s> <pad> [UNK]",
    "https://example.com/a?b=c#d e-mail@example.com $12,345.67 -0.5e-3",
    "donaudampfschifffahrtsgesellschaftskapitänsmütze" * 3,
    "null\x00byte \ufeff\u200b\u00ad",
    *(" ".join((_WORDS * (count // len(_WORDS) + 1))[:count]) for count in _LENGTHS),
)
_ARGUMENTS: Mapping[str, tuple[Any, ...]] = {
    "top_k": (1, 2, 3, 100, 0, -1),
    "function_to_apply": ("softmax", "sigmoid", "none", ""),
    "hypothesis_template": ("This is about {}.", "", "{}", "It says: {}, says it?"),
    "multi_label": (False, True),
    "doc_stride": (16, 8, 0, 128),
    "max_answer_len": (15, 1, 4),
    "max_seq_len": (64, 48, 384),
    "max_question_len": (24, 64),
    "handle_impossible_answer": (False, False, True),
    "align_to_words": (True, True, False),
}
_QUESTIONS = (
    "Why did the line stop?",
    "What is loud",
    "机械?",
    "Who said so, and when was it that nobody did?",
    "press",
)
_SENTENCES: Mapping[str, tuple[str, ...]] = {"question": _QUESTIONS, "context": TEXTS}
_CANDIDATES = ("mechanical", "electrical", "software", "naïve", "the press", "why", "ok", "other")
_SIDES = ((48, 64), (64, 48), (32, 32), (17, 90), (5, 4), (200, 31))  # of pictures whose size is not said
_PICTURES = 9


def rows_to_prove(task: str, inputs: Schema, outputs: Schema) -> list[dict[str, Any]]:
    """Rows with every field, each the same on every run."""
    room = next((field.type.size for field in outputs if isinstance(field.type, ListOf) and field.type.size), None)
    if task == "feature-extraction":
        room = None
    shown = "inputs" in inputs and isinstance(inputs["inputs"].type, ListOf)
    count = _PICTURES if shown else len(TEXTS)
    columns = {field.name: _values(field, room) for field in inputs}
    return [{name: next(values) for name, values in columns.items()} for _ in range(count)]


def _values(field: Field, room: int | None) -> Iterator[Any]:
    type_ = sure(field.type)
    if field.name == "inputs":
        return _pictures(type_) if isinstance(type_, ListOf) else cycle(TEXTS)
    if field.name in _SENTENCES:
        return cycle(_SENTENCES[field.name])
    if field.name == "candidate_labels" and isinstance(type_, ListOf):
        return _labels(type_.size or room)
    values = _ARGUMENTS[field.name]
    if field.name == "top_k" and room:
        return cycle((room,))
    return cycle((*values, None) if field.type.nullable else values)


def _labels(size: int | None) -> Iterator[list[str]]:
    for turn in cycle(range(len(_CANDIDATES))):
        count = size or 1 + turn % 4
        yield [
            _CANDIDATES[(turn + at) % len(_CANDIDATES)] + ("" if at < len(_CANDIDATES) else f" {at}")
            for at in range(count)
        ]


def _pictures(type_: ListOf) -> Iterator[Any]:
    """Noise, black and white, slopes, one colour; each size that the type leaves open."""
    draw = np.random.RandomState(len(_CANDIDATES))
    fixed = type_.size, type_.item.size if isinstance(type_.item, ListOf) else None
    for at in cycle(range(len(_SIDES))):
        height, width = (said or free for said, free in zip(fixed, _SIDES[at], strict=True))
        slope = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
        kinds = (
            draw.randint(0, 256, (height, width, 3)),
            np.full((height, width, 3), at * 50),
            draw.randint(0, 2, (height, width, 3)) * 255,
            slope,
        )
        yield kinds[at % len(kinds)].astype(int).tolist()
