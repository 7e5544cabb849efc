"""Types of fields, as far as a worker must know them: reads what `columns.types` writes (canonical text only)."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

_NUMBER = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_WORD = re.compile(r"[a-z0-9]+(\[(s|ms|us|ns)\])?")


class Type(NamedTuple):
    """A scalar (`item` and `fields` None), a list of `item`, or a struct of `fields`."""

    name: str
    nullable: bool = False
    item: Any | None = None
    size: int | None = None
    fields: tuple[tuple[str, Any], ...] | None = None

    def tensor(self) -> tuple[np.dtype[Any], list[int | None]] | None:
        """The dtype and a row's shape; None where a column of these is not a tensor."""
        if self.nullable or self.fields is not None:
            return None
        if self.item is not None:
            inner = self.item.tensor()
            return None if inner is None else (inner[0], [self.size, *inner[1]])
        return (np.dtype(self.name), []) if _NUMBER.fullmatch(self.name) else None


def parse(text: str) -> Type:
    """Read a type."""
    found, rest = _parse(text)
    if rest:
        raise ValueError(f"type {text!r} does not read at {rest!r}")
    return found


def _parse(text: str) -> tuple[Type, str]:
    if text.startswith("list<"):
        item, rest = _parse(text[5:])
        size = re.match(r">(?:\[([0-9]+)\])?", rest)
        if size is None:
            raise ValueError(f"type does not read at {rest!r}")
        made = Type("list", item=item, size=int(size[1]) if size[1] else None)
        return _nullable(made, rest[size.end() :])
    if text.startswith("struct<"):
        fields, rest = [], text[6:]
        while rest[0] != ">":
            name, _, rest = rest[1:].lstrip().partition(": ")
            inner, rest = _parse(rest)
            fields.append((name, inner))
        return _nullable(Type("struct", fields=tuple(fields)), rest[1:])
    word = _WORD.match(text)
    if word is None:
        raise ValueError(f"type does not read at {text!r}")
    return _nullable(Type(word[0]), text[word.end() :])


def _nullable(made: Type, rest: str) -> tuple[Type, str]:
    return (made._replace(nullable=True), rest[1:]) if rest.startswith("?") else (made, rest)
