"""The lines of `.model-ignore`, which ADS reads as those of a `.gitignore`: which paths they name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

_ANY = "**"
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Pattern:
    """One line, part by part: `*` does not reach over a slash, a part `**` stands for any folders."""

    parts: tuple[str, ...]
    is_folder: bool  # `x/`
    takes_back: bool  # `!x`

    @classmethod
    def parse(cls, line: str) -> Pattern:
        """Read a line that is neither empty nor a comment."""
        text = line if line.endswith("\\ ") else line.rstrip()
        path = text.removeprefix("!")
        parts = [_ESCAPED.sub(_plain, part) for part in path.split("/") if part]
        anywhere = [] if "/" in path.rstrip("/") else [_ANY]  # a name alone is that of a file or folder in any folder
        inside = ["*"] if parts[-1:] == [_ANY] else []  # `x/**` is what lies in x, and not x
        return cls((*anywhere, *parts, *inside), path.endswith("/"), path != text)

    def fits(self, path: str) -> bool:
        """Whether it names the path, or a folder that the path lies in."""
        parts = path.split("/")
        reached = self._with_skipped({0})
        for at, part in enumerate(parts):
            reached = self._with_skipped({end for place in reached for end in self._after(place, part)})
            if len(self.parts) in reached and (at < len(parts) - 1 or not self.is_folder):
                return True
        return False

    def _after(self, place: int, part: str) -> Iterable[int]:
        """The places in the pattern that one part of a path leads to."""
        if place == len(self.parts):
            return ()
        if self.parts[place] == _ANY:
            return (place,)
        return (place + 1,) if fnmatchcase(part, self.parts[place]) else ()

    def _with_skipped(self, places: set[int]) -> set[int]:
        """The same, and those behind each `**`, which may stand for no folder."""
        for place in range(len(self.parts)):
            if place in places and self.parts[place] == _ANY:
                places.add(place + 1)
        return places


def is_ignored(path: str, patterns: Iterable[Pattern]) -> bool:
    """The last pattern that fits decides, and `!` takes a path back."""
    fitting = [pattern for pattern in patterns if pattern.fits(path)]
    return bool(fitting) and not fitting[-1].takes_back


def _plain(escaped: re.Match[str]) -> str:
    """A character that a backslash takes as it is; `fnmatch` knows no backslash."""
    return f"[{escaped[1]}]" if escaped[1] in "*?[" else escaped[1]
