"""Environments on one disk share the files of the wheels that they have in common: these are links to one content.

An environment lists what each of its wheels brought in `.wheels/<wheel>`, a path a line. The next one that has the
wheel links those files instead of unpacking and compiling them again. A wheel that brought a file which another wheel
of its environment brought as well is not listed: what stands there may be the other's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

LISTS = ".wheels"  # in an environment


class Unshared(Exception):
    """What was to be linked is gone, stands in the way, or this file system has no links."""


@dataclass(frozen=True)
class SharedWheel:
    """A wheel that an environment on this disk has: its files there, by path."""

    site: Path
    paths: tuple[str, ...]

    def link(self, site: Path) -> None:
        """Put its files into another environment. Raises Unshared."""
        try:
            for path in self.paths:
                target = site / path
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.site / path, target)
        except OSError as error:
            raise Unshared(str(error)) from error


def find_shared(environments: Path, wheel: str) -> SharedWheel | None:
    """A wheel, by the name that its list has, in one of the environments; None where none has it whole."""
    for path in environments.glob(f"*/{LISTS}/{wheel}"):
        if not path.parents[1].name.startswith("."):  # another process is making that one
            try:
                return SharedWheel(path.parents[1], tuple(path.read_text().splitlines()))
            except OSError:
                continue  # it was deleted just now
    return None


def list_wheels(site: Path, brought: Mapping[str, Sequence[str]]) -> None:
    """Note in a compiled environment which files each wheel brought; `brought` gives their paths, without byte code."""
    times = Counter(path for paths in brought.values() for path in paths)
    (site / LISTS).mkdir()
    for wheel, paths in brought.items():
        if all(times[path] == 1 for path in paths):
            (site / LISTS / wheel).write_text("\n".join([*paths, *_compiled(site, paths)]))


def _compiled(site: Path, paths: Sequence[str]) -> list[str]:
    """The byte code of modules, where they did compile and are not listed themselves."""
    found = (cache_from_source(path) for path in paths if path.endswith(".py"))
    return [path for path in found if path not in paths and (site / path).is_file()]
