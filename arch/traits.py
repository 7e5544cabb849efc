"""What an image for a target is made of and what it can run: one readable file a target, in `arch/targets/`.

A file of the user's own has the same fields (docs/targets.md). It changes a target that is there, or adds one that is
`like` another; what it leaves out is as there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from arch.target import Target, every_target
from edgepack.errors import BadInput

_FOLDER = Path(__file__).with_name("targets")
_OWN = "debian "
_RELEASE = "bookworm"
_DEBIAN = {"x86": "amd64", "arm": "arm64"}
_MACHINES = {"x86": "x86_64", "arm": "aarch64"}

Settings = Mapping[str, Mapping[str, str]]  # provider → option → value


@dataclass(frozen=True)
class Traits:
    """The facts of one target.

    `python` is the interpreter's minor version and `glibc` the C library's, of the base; one of the user's own is
    asked for both. `base` is `debian RELEASE` for our own, else an OCI layout or a place in a registry, or None when
    the user must say. `replace` maps a package that the agent requires to the requirements that take its place,
    `exclude` names packages that are asked for and not needed, `brings` those that the base has
    itself: an image has neither from a wheel. `indexes` are asked for wheels before the machine's own
    index. `providers` are ONNX Runtime's execution providers, the first choice first; `options` are theirs, and `cache`
    those that are given only where there is a folder to keep compiled models in (`arch/options.py`). `pythons` limits
    what a base may have, `refused` says why another does not do. `site` is where packages go that shall not mix with
    the base's.
    `run` are the flags that a container needs beside the ports. `status` says how far the target was tried.
    """

    target: Target
    python: str
    glibc: str
    base: str | None
    providers: tuple[str, ...]
    status: str
    replace: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Settings = field(default_factory=dict)
    cache: Settings = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    brings: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    site: str | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The packages of which no wheel goes into an image, sorted."""
        return tuple(sorted({*self.exclude, *self.brings}))

    @property
    def debian_arch(self) -> str:
        """Debian's name of the architecture."""
        return _DEBIAN[self.target.arch]

    @property
    def debian_release(self) -> str:
        """The release that our own base is made of."""
        return (self.base or "").removeprefix(_OWN) if self.is_own_base else _RELEASE

    @property
    def is_own_base(self) -> bool:
        """Whether the image stands on a base that edgepack makes."""
        return bool(self.base) and str(self.base).startswith(_OWN)

    @property
    def machine(self) -> str:
        """The kernel's name of the architecture."""
        return _MACHINES[self.target.arch]

    @property
    def wheel_platform(self) -> str:
        """What the resolver is asked for: no wheel may need a newer glibc than the base has."""
        return f"{self.machine}-manylinux_{self.glibc.replace('.', '_')}"


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A target file, as TOML has it."""

    target: str
    like: str | None = None
    python: str | None = None
    glibc: str | None = None
    base: str | None = None
    providers: list[str] | None = None
    status: str | None = None
    replace: dict[str, list[str]] | None = None
    options: dict[str, dict[str, str]] | None = None
    cache: dict[str, dict[str, str]] | None = None
    exclude: list[str] | None = None
    brings: list[str] | None = None
    indexes: list[str] | None = None
    environment: dict[str, str] | None = None
    run: list[str] | None = None
    labels: dict[str, str] | None = None
    pythons: dict[str, str] | None = None
    refused: dict[str, str] | None = None
    site: str | None = None


@cache
def traits_of(target: Target) -> Traits:
    """The row of a target that edgepack brings; every target that `Target.parse` accepts has one."""
    path = _FOLDER / f"{target.arch}-{target.accel}.toml"
    return read_traits(path, {})


def every_traits() -> tuple[Traits, ...]:
    """All rows that edgepack brings, in the order in which targets are listed to users."""
    return tuple(traits_of(target) for target in every_target())


def read_traits(path: Path, known: Mapping[Target, Traits]) -> Traits:
    """Read one file, on top of what is known of the same target or of the one it is like.

    Raises BadInput that names the file and what is wrong in it.
    """
    try:
        found = msgspec.convert(_read_toml(path), _File)
        target = Target.read(found.target)
        given = _given(found)
        _check(given, path)
        like = Target.read(found.like or f"{target.arch}/none")
        below = known.get(target) or known.get(like)
        if below is None and known:
            raise BadInput(f"like '{like}' is no target: choose one of {', '.join(map(str, known))}")
        if below is None:
            return Traits(target=target, **{"base": None, **given})
        if target not in known:
            given = {"status": "not tested on hardware", **given}
        mine = {name: getattr(below, name) for name in Traits.__dataclass_fields__}
        return Traits(**{**mine, **given, "target": target})
    except (OSError, ValueError, TypeError, msgspec.ValidationError, BadInput) as error:
        raise BadInput(f"target file '{path.name}' does not read: {error}; docs/targets.md has an example") from error


def _given(found: _File) -> dict[str, Any]:
    said = {key: value for key, value in msgspec.structs.asdict(found).items() if value is not None}
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    if "replace" in said:
        said["replace"] = {name: tuple(lines) for name, lines in said["replace"].items()}
    return {key: value for key, value in said.items() if key not in ("target", "like")}


def _check(given: Mapping[str, Any], path: Path) -> None:
    base = str(given.get("base", ""))
    if base.startswith(_OWN) and base != f"{_OWN}{_RELEASE}":
        raise BadInput(f"base '{base}' is not one that edgepack makes: expected '{_OWN}{_RELEASE}', a layout or a ref")
    if given.get("site", "").startswith("/") or ".." in given.get("site", "").split("/"):
        raise BadInput(f"site '{given['site']}' must be a path inside the image without a slash in front")
    if "CPUExecutionProvider" not in given.get("providers", ["CPUExecutionProvider"]):
        raise BadInput("providers must end with CPUExecutionProvider: a model runs there when the device lacks another")


def _read_toml(path: Path) -> object:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]
    return tomllib.loads(path.read_text("utf-8"))
