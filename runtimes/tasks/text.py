"""Texts to the tensors of a network, by a tokenizer from its file. The one module that imports `tokenizers`, and only
when a step needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bundle.task import TaskSpec, TextSpec
from edgepack.errors import BadInput, RuntimeFailed

MOST_CHARACTERS = 1 << 19  # of a text: a tokenizer takes up to 140 bytes of memory for each
MOST_WINDOWS = 512  # that a context is read in, of some 190 kB each

# tensor of a network → what an encoding calls it
TENSORS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class Texts:
    """A tokenizer. It may be asked by several threads at once."""

    def __init__(self, tokenizer: Any, names: tuple[str, ...], spec: TextSpec) -> None:
        self._tokenizer, self._names, self._spec = tokenizer, names, spec

    @classmethod
    def load(cls, path: Path, task: TaskSpec, step: str) -> Texts:
        """Read the tokenizer's file. Raises BadInput without the library, RuntimeFailed for a file that it refuses."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise BadInput(
                f"step '{step}' reads text, for which tokenizers is not installed: pip install 'edgepack[text]'"
            ) from error
        try:
            made = Tokenizer.from_file(str(path))
        except Exception as error:  # its errors have no other root
            raise RuntimeFailed(f"the tokenizer of step '{step}' does not load: {_line(error)}") from error
        made.no_padding()
        spec = task.text or TextSpec()
        if spec.cut_at:
            made.enable_truncation(spec.cut_at, strategy="only_first")
        else:
            made.no_truncation()
        return cls(made, tuple(name for name in task.takes if name in TENSORS), spec)

    def tensors(self, name: str, text: str, pair: str | None = None) -> dict[str, np.ndarray]:
        """The network's tensors for one text, or for a text and a second one behind it. `name` is the field.

        Raises BadInput for a text that is too long, for the tokenizer or for the network.
        """
        _check_length(name, len(text) + len(pair or ""))
        try:
            found = self._tokenizer.encode(text, pair)
        except Exception as error:  # as above
            raise BadInput(f"field '{name}' does not become tokens: {_line(error)}", field=name) from error
        return self.tensors_of(name, found)

    def windows(self, question: str, context: str, length: int, stride: int) -> list[Any]:
        """Encodings of a question with each part of a context, `length` tokens in all, of which the contexts of two
        share `stride`. Raises BadInput where the question leaves no room, for texts that are too long, and for more
        than `MOST_WINDOWS`.
        """
        _check_length("question", len(question))
        _check_length("context", len(context))
        asked = self._tokenizer.encode(question, add_special_tokens=False)
        read = self._tokenizer.encode(context, add_special_tokens=False)
        room = length - len(asked.ids) - self._tokenizer.num_special_tokens_to_add(True)
        if len(read.ids) > room:
            if room <= stride:
                raise BadInput(
                    f"field 'question' leaves {max(room, 0)} of {length} tokens for the context, of which {stride} are "
                    "to be shared: ask in fewer words, or lower doc_stride",
                    field="question",
                )
            _check_count(1 - (len(read.ids) - room) // (stride - room), length, stride)
            read.truncate(room, stride=stride)
        return [self._tokenizer.post_process(asked, part) for part in (read, *read.overflowing)]

    def tensors_of(self, name: str, found: Any) -> dict[str, np.ndarray]:
        """The network's tensors for an encoding of the field `name`. Raises BadInput where it is too long."""
        if self._spec.most and len(found.ids) > self._spec.most:
            raise BadInput(
                f"field '{name}' is {len(found.ids)} tokens long, the model takes at most {self._spec.most}", field=name
            )
        return {tensor: np.array(getattr(found, TENSORS[tensor]), dtype=np.int64) for tensor in self._names}


def _check_length(name: str, characters: int) -> None:
    if characters > MOST_CHARACTERS:
        raise BadInput(
            f"field '{name}' has {characters} characters to be read, expected at most {MOST_CHARACTERS}: give a part",
            field=name,
        )


def _check_count(windows: int, length: int, stride: int) -> None:
    if windows > MOST_WINDOWS:
        raise BadInput(
            f"field 'doc_stride' is {stride}, which cuts the context into {windows} windows of {length} tokens: "
            f"expected at most {MOST_WINDOWS}, share fewer or give a shorter text",
            field="doc_stride",
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
