"""`Catalog`: the targets one can build for here: those that edgepack brings, and the user's own files.

Files lie in the project's folder `targets/` and in `targets/` of the user's configuration folder; the project's win.
`EDGEPACK_BASE_ARM_JETSON` names the base of arm/jetson, and so on; `EDGEPACK_BASE` that of every target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from arch.target import Target, choose
from arch.traits import Traits, every_traits, read_traits
from edgepack.errors import BadInput

FOLDER = "targets"
EVERY = "EDGEPACK_BASE"


@dataclass(frozen=True)
class Catalog:
    """Rows by target, in the order in which they are listed."""

    rows: Mapping[Target, Traits]

    @classmethod
    def read(cls, folders: Iterable[Path] = (), environ: Mapping[str, str] | None = None) -> Catalog:
        """Read target files; a later folder wins. Raises BadInput for a file that does not read."""
        rows = {traits.target: traits for traits in every_traits()}
        for folder in folders:
            for path in sorted(folder.glob("*.toml")):
                traits = read_traits(path, rows)
                rows[traits.target] = _beside(traits, path)
        for target, traits in rows.items():
            base = _said(environ or {}, variable(target)) or _said(environ or {}, EVERY)
            rows[target] = replace(traits, base=base) if base else traits
        return cls(rows)

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them."""
        return tuple(self.rows)

    def parse(self, text: str) -> Target:
        """Read what a user wrote. Raises BadInput for a pair that does not exist, with those that do."""
        return choose(text, self.targets)

    def traits(self, target: Target) -> Traits:
        """The row of a target. Raises BadInput for one that is not listed."""
        return self.rows[choose(str(target), self.targets)]


def variable(target: Target) -> str:
    """The environment variable that names a target's base."""
    return f"EDGEPACK_BASE_{target.arch}_{target.accel}".upper().replace("-", "_")


def _said(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()


def without_base(target: Target) -> BadInput:
    """What to say when a target stands on a base that the user must name and has not."""
    line = 'base = "host/repository:tag"'
    return BadInput(
        f"target {target} stands on a base of your own, which nobody has named: give --base, set {variable(target)}, "
        f'or write the line {line} below target = "{target}" in {FOLDER}/{target.arch}-{target.accel}.toml'
    )


def _beside(traits: Traits, path: Path) -> Traits:
    """A base that is a folder or file lies beside the file that names it, not where somebody happens to stand."""
    if traits.base is None or traits.is_own_base:
        return traits
    near = path.parent / traits.base
    return replace(traits, base=str(near)) if near.exists() else traits
