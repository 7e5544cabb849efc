"""The type grammar: `T`, `list<T>`, `list<T>[N]`, `struct<a: T, b: T>`, nested; a `?` behind: nullable.

`T` is an Arrow primitive name. Two rules on top of Arrow: there is no `null` type, times of day are strings.
Time zones are dropped: a timestamp counts from the epoch in UTC, whatever zone it is shown in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from edgepack.errors import BadInput

_NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMPY = {name: np.dtype(name) for name in (*_NUMBERS, "float16", "float32", "float64")}
_STAMPS = tuple(f"timestamp[{unit}]" for unit in ("s", "ms", "us", "ns"))

SCALARS = (*_NUMPY, "string", "binary", "date32", *_STAMPS)
_ALIASES = {
    "boolean": "bool",
    "halffloat": "float16",
    "half_float": "float16",
    "float": "float32",
    "double": "float64",
    "str": "string",
    "utf8": "string",
    "large_string": "string",
    "large_utf8": "string",
    "large_binary": "binary",
    "date32[day]": "date32",
}
_MAX_DEPTH = 32
_MAX_SIZE = 2**31 - 1
_WORD = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*(?:\[[A-Za-z][^\[\]<>]*\])?)\s*")
_NAME = re.compile(r"\s*([^\s:<>,?](?:[^:<>,?]*[^\s:<>,?])?)\s*:")
_SIZE = re.compile(r"\s*\[\s*([0-9]{1,10})\s*\]")
_TIME_OF_DAY = re.compile(r"time(32|64)\[(s|ms|us|ns)\]")
_ZONED = re.compile(r"(timestamp\[(?:s|ms|us|ns)),\s*tz=[^\]]+\]")

TensorShape = tuple[int | None, ...]


@dataclass(frozen=True)
class Scalar:
    """One value: `float32`, `string`, `timestamp[ms]`, ..."""

    name: str
    nullable: bool = False

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The numpy dtype of a number or truth value, None for all else."""
        return _NUMPY.get(self.name)

    @cached_property
    def _tensor(self) -> tuple[np.dtype[np.generic], TensorShape] | None:
        return None if self.nullable or self.dtype is None else (self.dtype, ())

    def tensor_dtype_and_shape(self) -> tuple[np.dtype[np.generic], TensorShape] | None:
        """The dtype and an empty shape; None where a column of these is not a tensor."""
        return self._tensor

    def __str__(self) -> str:
        return self.name + "?" * self.nullable


@dataclass(frozen=True)
class ListOf:
    """A list of items of one type; `size` None is a free length."""

    item: Type
    size: int | None = None
    nullable: bool = False

    @cached_property
    def _tensor(self) -> tuple[np.dtype[np.generic], TensorShape] | None:
        inner = self.item.tensor_dtype_and_shape()
        return None if self.nullable or inner is None else (inner[0], (self.size, *inner[1]))

    def tensor_dtype_and_shape(self) -> tuple[np.dtype[np.generic], TensorShape] | None:
        """The dtype and one row's shape, None for a free axis; None where the items are not plain numbers."""
        return self._tensor

    def __str__(self) -> str:
        size = "" if self.size is None else f"[{self.size}]"
        return f"list<{self.item}>{size}" + "?" * self.nullable


@dataclass(frozen=True)
class StructOf:
    """Named values, each of its own type, in a fixed order."""

    fields: tuple[tuple[str, Type], ...]
    nullable: bool = False

    def tensor_dtype_and_shape(self) -> tuple[np.dtype[np.generic], TensorShape] | None:
        """Always None: a struct is no tensor."""
        return None

    def __str__(self) -> str:
        inner = ", ".join(f"{name}: {each}" for name, each in self.fields)
        return f"struct<{inner}>" + "?" * self.nullable


Type = Scalar | ListOf | StructOf


def rank(type_: Type) -> int:
    """How many lists stand around the innermost type."""
    return 1 + rank(type_.item) if isinstance(type_, ListOf) else 0


def innermost(type_: Type) -> Scalar | StructOf:
    """What lists of lists are made of."""
    return innermost(type_.item) if isinstance(type_, ListOf) else type_


def scalars_of(type_: Type) -> Iterator[Scalar]:
    """All scalars a type is made of."""
    if isinstance(type_, Scalar):
        yield type_
    elif isinstance(type_, ListOf):
        yield from scalars_of(type_.item)
    else:
        for _, each in type_.fields:
            yield from scalars_of(each)


@lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """Read a type. Raises BadInput with the place that does not read."""
    parser = _Parser(text)
    found = parser.type(0)
    if parser.rest:
        raise parser.fault("expected nothing more")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self.rest = text.strip()

    def fault(self, why: str) -> BadInput:
        where = f"at '{clip(self.rest)}'" if self.rest else "at its end"
        return BadInput(f"type '{clip(self._text)}' does not read {where}: {why}")

    def type(self, depth: int) -> Type:
        if depth > _MAX_DEPTH:
            raise self.fault(f"at most {_MAX_DEPTH} levels")
        word = self._match(_WORD)
        if word is None:
            raise self.fault("expected a type, such as float32 or list<float32>[13]")
        if word in ("list", "large_list", "fixed_size_list"):
            return self._nullable(self._list(depth))
        if word == "struct":
            return self._nullable(self._struct(depth))
        return self._nullable(self._scalar(word))

    def _list(self, depth: int) -> ListOf:
        self._expect("<")
        item = self.type(depth + 1)
        self._expect(">")
        size = self._match(_SIZE)
        if size is not None and not 1 <= int(size) <= _MAX_SIZE:
            raise self.fault(f"a list's size is 1 to {_MAX_SIZE}, found {size}")
        return ListOf(item, None if size is None else int(size))

    def _struct(self, depth: int) -> StructOf:
        self._expect("<")
        fields: dict[str, Type] = {}
        while True:
            name = self._match(_NAME)
            if name is None:
                raise self.fault("expected a struct field, such as 'a: float32'")
            if name in fields:
                raise self.fault(f"the struct has two fields '{name}'")
            fields[name] = self.type(depth + 1)
            if not self._take(","):
                break
        self._expect(">")
        return StructOf(tuple(fields.items()))

    def _scalar(self, word: str) -> Scalar:
        name = "string" if _TIME_OF_DAY.fullmatch(word) else _ZONED.sub(r"\1]", word)
        name = _ALIASES.get(name, name)
        if name not in SCALARS:
            raise self.fault(f"no type '{word}': choose one of {', '.join(SCALARS)}, list<...>, struct<...>")
        if self.rest.startswith("["):
            raise self.fault(f"a size follows a list, as in list<{name}>{self.rest.partition(']')[0]}]")
        return Scalar(name)

    def _nullable(self, found: Type) -> Type:
        return replace(found, nullable=True) if self._take("?") else found

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.rest)
        if match is None:
            return None
        self.rest = self.rest[match.end() :].lstrip()
        return match.group(1)

    def _take(self, mark: str) -> bool:
        if not self.rest.startswith(mark):
            return False
        self.rest = self.rest[1:].lstrip()
        return True

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise self.fault(f"expected '{mark}'")


def clip(text: str, length: int = 60) -> str:
    """Text from outside as a message can show it: one printable line, not long."""
    line = text if text.isprintable() else text.encode("unicode_escape", "replace").decode("ascii")
    return line if len(line) <= length else line[: length - 3] + "..."
