"""Question answering: the span of a context that answers best, sought in windows of it that overlap."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bundle.task import Answering, TaskSpec
from edgepack.errors import BadInput
from runtimes.tasks.task import Asked, Row, Tensors, given
from runtimes.tasks.text import Texts

_STRIDE, _LONGEST = 128, 15  # tokens that windows share at the most; of an answer, where a request does not say
_NEVER = -10000.0  # the logit of a token that cannot be part of an answer
_NO_ANSWER = 1_000_000.0  # above every score
_MORE = 10  # spans that are looked at beside twice those asked for: several may be the same words


class QuestionAnswering:
    """The best span with its score; spans that are the same words count together."""

    def __init__(self, spec: TaskSpec, texts: Texts) -> None:
        self._spec, self._texts = spec.answering or Answering(), texts

    def asks(self, row: Row) -> Asked:
        """The tensors of each window; score, place and words of the answer."""
        windows = self._windows(row)
        passes: list[Tensors] = [self._texts.tensors_of("context", window) for window in windows]
        return Asked(passes, partial(self._answer, row, windows))

    def _answer(self, row: Row, windows: list[Any], found: list[Tensors]) -> dict[str, Any]:
        answers: dict[str, dict[str, Any]] = {}
        count, longest = _number(row, "top_k", 1), _number(row, "max_answer_len", _LONGEST)
        is_aligned = given(row, "align_to_words") is not False
        may_be_none, none_score = bool(given(row, "handle_impossible_answer")), _NO_ANSWER
        for window, tensors in zip(windows, found, strict=True):
            usable = self._usable(window)
            start, end = (_shares(logits[np.newaxis], usable) for logits in tensors.values())
            none_score = min(none_score, float(start[0, 0] * end[0, 0]))
            start[0, 0] = end[0, 0] = 0.0
            for first, last, score in _spans(start, end, 2 * count + _MORE if is_aligned else count, longest, usable):
                place = _aligned(window, first, last) if is_aligned else _exactly(window, first, last)
                words = row["context"][slice(*place)]
                known = answers.setdefault(
                    words.lower(), {"score": 0.0, "start": place[0], "end": place[1], "answer": words}
                )
                known["score"] += score
        listed = [*answers.values()]
        if may_be_none:
            listed.append({"score": none_score, "start": 0, "end": 0, "answer": ""})
        if not listed:
            raise BadInput("field 'context' has no words that could be an answer", field="context")
        return max(listed, key=lambda each: each["score"])

    def _windows(self, row: Row) -> list[Any]:
        for name in ("question", "context"):
            if not row[name]:
                raise BadInput(
                    f"field '{name}' is empty: expected a question, and a text that may answer it", field=name
                )
        length = _number(row, "max_seq_len", self._spec.length)
        stride = _number(row, "doc_stride", min(length // 2, _STRIDE), least=0)
        return self._texts.windows(row["question"], row["context"], length, stride)

    def _usable(self, window: Any) -> np.ndarray:
        """Which tokens may be part of an answer: the context's; the mark in front stands for none."""
        usable = np.array([each == 1 for each in window.sequence_ids])
        if self._spec.mark >= 0:
            usable |= np.array(window.ids) == self._spec.mark
        return usable


def _number(row: Row, name: str, usual: int, least: int = 1) -> int:
    value = given(row, name)
    if value is not None and int(value) < least:
        raise BadInput(f"field '{name}' is {int(value)}, expected {least} or more", field=name)
    return usual if value is None else int(value)


def _shares(logits: np.ndarray, usable: np.ndarray) -> np.ndarray:
    kept = np.where(usable, logits, np.float32(_NEVER))
    parts = np.exp(kept - kept.max(axis=-1, keepdims=True))
    found: np.ndarray = parts / parts.sum()
    return found


def _spans(
    start: np.ndarray, end: np.ndarray, count: int, longest: int, usable: np.ndarray
) -> list[tuple[int, int, float]]:
    """The likeliest spans: first and last token, and score."""
    both = np.tril(np.triu(np.matmul(start[..., np.newaxis], end[:, np.newaxis])), longest - 1)
    flat = both.flatten()
    if count == 1:
        best = np.array([np.argmax(flat)])
    elif len(flat) < count:
        best = np.argsort(-flat)
    else:
        some = np.argpartition(-flat, count - (count == len(flat)))[:count]
        best = some[np.argsort(-flat[some])]
    firsts, lasts = np.unravel_index(best, both.shape)[1:]
    return [
        (int(first), int(last), float(both[0, first, last]))
        for first, last in zip(firsts, lasts, strict=True)
        if usable[first] and usable[last]
    ]


def _exactly(window: Any, first: int, last: int) -> tuple[int, int]:
    return window.offsets[first][0], window.offsets[last][1]


def _aligned(window: Any, first: int, last: int) -> tuple[int, int]:
    """The places of the words that the tokens are parts of; of the tokens where there are no words."""
    words = window.token_to_word(first), window.token_to_word(last)
    if None in words:
        return _exactly(window, first, last)
    ends = [window.word_to_chars(word, sequence_index=1) for word in words]
    return _exactly(window, first, last) if None in ends else (ends[0][0], ends[1][1])
