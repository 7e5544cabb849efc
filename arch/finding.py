"""`Finding`: one thing that `edgepack doctor` and `edgepack-agent doctor` looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from edgepack.errors import EdgepackError


@dataclass(frozen=True)
class Finding:
    """What was found; `fix` says what to do where it did not pass. What is not `needed` fails nothing."""

    key: str
    passed: bool
    description: str
    fix: str | None = None
    needed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        mark = "ok  " if self.passed else "FAIL" if self.needed else "--  "
        return f"{mark}  {self.key:18}{self.description}" + (f": {self.fix}" if self.fix and not self.passed else "")


def examine(key: str, look: Callable[[], str], fix: str | None = None, *, needed: bool = True) -> Finding:
    """Look at something that says what it found, or raises what is wrong; our own messages already say what to do."""
    try:
        return Finding(key, True, look(), needed=needed)
    except EdgepackError as error:
        return Finding(key, False, str(error), fix, needed)
    except OSError as error:
        return Finding(key, False, error.strerror or str(error), fix, needed)


def are_well(findings: Iterable[Finding]) -> bool:
    """Whether all that is needed passed."""
    return all(each.passed for each in findings if each.needed)
