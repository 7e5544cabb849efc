"""What stands for the objects of a pickle that is read without being loaded, and what is found on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from packager.convert.allowed import is_allowed, shown

ARRAY = ("joblib.numpy_pickle", "NumpyArrayWrapper")


@dataclass(frozen=True)
class Global:
    """A name that the stream asks the unpickler to look up."""

    module: str
    name: str

    def __str__(self) -> str:
        return ".".join(shown(self.module, self.name))


@dataclass
class Made:
    """An object that unpickling would make: of what, with which arguments and state."""

    what: Any
    args: Any = None
    state: Any = None


@dataclass
class Scan:
    """What was found. `top` is the class of the outermost object, where it is one."""

    globals: set[Global] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)
    top: Global | None = None
    protocol: int = 0
    opcodes: int = 0

    @property
    def is_joblib(self) -> bool:
        """Whether joblib wrote it, so that pickle alone cannot read it."""
        return Global(*ARRAY) in self.globals

    @property
    def refused(self) -> list[str]:
        """What it names and a trained model does not need."""
        names = sorted(str(each) for each in self.globals if not is_allowed(each.module, each.name))
        return [*names, *self.odd]
