"""`Schema`: named fields in a fixed order, each with a type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from columns.types import Type, clip, parse_type
from edgepack.errors import BadInput


@dataclass(frozen=True)
class Field:
    """A name and the type of the values under it."""

    name: str
    type: Type

    @cached_property
    def text(self) -> str:
        """The type as it is written, kept because hot paths ask for it often."""
        return str(self.type)

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True)
class Schema:
    """Fields in their order. Raises BadInput for an empty name or two fields of one name."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        if len(self._by_name) != len(self.fields):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise BadInput(f"the schema has two fields '{clip(twice)}': each name stands once", field=clip(twice))
        if "" in self._by_name:
            raise BadInput("the schema has a field without a name", field="")

    @classmethod
    def parse(cls, types: Mapping[str, str]) -> Schema:
        """Read `{"inputs": "list<float32>[13]"}`. Raises BadInput that names the field at fault."""
        return cls(tuple(_parse_field(name, text) for name, text in types.items()))

    @classmethod
    def of(cls, fields: Iterable[Field]) -> Schema:
        """A schema of these fields."""
        return cls(tuple(fields))

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in order."""
        return tuple(field.name for field in self.fields)

    def to_dict(self) -> dict[str, str]:
        """Name to type as text: what `parse` reads."""
        return {field.name: field.text for field in self.fields}

    def __getitem__(self, name: str) -> Field:
        try:
            return self._by_name[name]
        except KeyError:
            raise BadInput(f"no field '{clip(name)}': there is {self.listing}", field=clip(name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    @property
    def listing(self) -> str:
        """The names as messages list them."""
        shown = [f"'{clip(name)}'" for name in self.names[:12]]
        more = len(self.fields) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "no field at all"

    def check_names(self, found: Iterable[str], where: str) -> None:
        """Raise BadInput unless these are exactly the schema's names; `where` is whose they are: 'row 3'."""
        seen = set(found)
        for name in sorted(map(clip, seen - self._by_name.keys())):
            raise BadInput(f"{where} has an unknown field '{name}': the schema has {self.listing}", field=name)
        for name in self.names:
            if name not in seen:
                raise BadInput(f"{where} has no field '{name}': expected {self[name].text}", field=name)


def _parse_field(name: str, text: str) -> Field:
    try:
        return Field(name, parse_type(text))
    except BadInput as error:
        raise BadInput(f"field '{clip(name)}': {error}", field=clip(name)) from error
