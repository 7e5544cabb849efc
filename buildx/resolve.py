"""Asking uv which wheels a target needs. uv evaluates markers for the target; pip would do so for this machine.

Indexes are the machine's own: uv's configuration and environment, else the index that pip is configured with.
"""

from __future__ import annotations

import configparser
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from arch.traits import Traits
from buildx.lock import read_toml
from edgepack.errors import BadInput, BuildFailed, Unreachable

_TIMEOUT_S = 300
_PIP_CONFIGS = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_AWAY = re.compile(r"error sending request|dns error|operation timed out|Could not connect", re.IGNORECASE)
_UV_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_NO_INDEX", "UV_CONFIG_FILE")


@dataclass(frozen=True)
class Offer:
    """One wheel file of a resolved package, and where it lies now."""

    name: str
    version: str
    url: str
    sha256: str

    @property
    def filename(self) -> str:
        """The wheel's file name."""
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def is_local(self) -> bool:
        """Whether it lies in a folder of this machine."""
        return urlsplit(self.url).scheme == "file"


class _Wheel(msgspec.Struct):
    hashes: dict[str, str]
    url: str = ""


class _Package(msgspec.Struct):
    name: str
    version: str
    wheels: list[_Wheel] = []


class _Pylock(msgspec.Struct):
    """The part of a pylock.toml (PEP 751) that is used."""

    packages: list[_Package]


def resolve(
    traits: Traits, requirements: Sequence[str], local: Path | None, environ: Mapping[str, str]
) -> dict[str, list[Offer]]:
    """Resolve for a target: package → its wheels that run there, the best first. A folder of local wheels wins.

    It wins twice: when it suffices, no index is asked; when it does not, its versions are the only ones allowed.
    Raises BadInput with uv's reason when there is no solution.
    """
    if local is not None:
        try:
            return _compile(traits, requirements, ["--no-index", "--find-links", str(local)], environ)
        except BadInput:
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
                constraints.write("\n".join(_versions(local)))
                constraints.flush()
                return _compile(
                    traits, requirements, ["--find-links", str(local), "--constraint", constraints.name], environ
                )
    return _compile(traits, requirements, [], environ)


def offers_of(
    traits: Traits, pins: Mapping[str, str], local: Path | None, environ: Mapping[str, str]
) -> dict[str, list[Offer]]:
    """The wheels of exactly these versions, without asking what they depend on; no index where `local` has them."""
    pinned = [f"{name}=={version}" for name, version in sorted(pins.items())]
    return _compile_local_first(traits, pinned, ["--no-deps"], local, environ)


def nearest_versions(
    traits: Traits, name: str, version: str, local: Path | None, environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The highest version below and the lowest above one that has no wheel for a target; None where there is none."""
    links = ["--no-deps", *(["--find-links", str(local)] if local else [])]

    def one(requirement: str, resolution: str) -> str | None:
        more = [*links, "--resolution", resolution]
        try:
            found = _compile(traits, [requirement], more, environ)
        except BadInput:
            if local is None:
                return None
            try:  # the index may be away
                found = _compile(traits, [requirement], [*more, "--no-index"], environ)
            except BadInput:
                return None
        return next((offers[0].version for offers in found.values()), None)

    return one(f"{name}<{version}", "highest"), one(f"{name}>{version}", "lowest")


def _compile_local_first(
    traits: Traits, requirements: Sequence[str], more: Sequence[str], local: Path | None, environ: Mapping[str, str]
) -> dict[str, list[Offer]]:
    """Ask a folder by itself, so that it suffices without a network; where it does not, it and the index."""
    if local is None:
        return _compile(traits, requirements, more, environ)
    links = [*more, "--find-links", str(local)]
    with contextlib.suppress(BadInput):
        return _compile(traits, requirements, [*links, "--no-index"], environ)
    return _compile(traits, requirements, links, environ)


def _compile(
    traits: Traits, requirements: Iterable[str], more: Sequence[str], environ: Mapping[str, str]
) -> dict[str, list[Offer]]:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as asked, tempfile.NamedTemporaryFile("w") as overrides:
        asked.write("\n".join(requirements) + "\n")
        asked.flush()
        # a marker that never holds: nothing may bring what the base has
        overrides.write("".join(f"{name}; python_version < '0'\n" for name in traits.left_out))
        overrides.flush()
        command = [
            _uv(),
            "pip",
            "compile",
            "--quiet",
            "--format",
            "pylock.toml",
            "--no-header",
            "--only-binary",
            ":all:",
        ]
        # ours, whatever lies in this folder or on the path: uv takes from it what the target does not say
        command += ["--python", sys.executable]
        command += ["--python-version", traits.python, "--python-platform", traits.wheel_platform]
        command += [word for index in traits.indexes for word in ("--index", index)]
        command += ["--overrides", overrides.name] if traits.left_out else []
        environment = _environment(environ)
        command = with_links([*command, *more, asked.name], environment)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BuildFailed(
                f"resolving the wheels for {traits.target} took more than {_TIMEOUT_S} s: is the index reachable?"
            ) from error
    if done.returncode and _AWAY.search(done.stderr):
        raise Unreachable(
            f"the package index does not answer, so the wheels for {traits.target} cannot be resolved: "
            f"{_away(done.stderr)}; check the network and the index, or give wheels with --wheels DIR"
        )
    if done.returncode:
        raise BadInput(
            f"the wheels for {traits.target} cannot be resolved: {_reason(done.stderr)}{_help(traits, done.stderr)}"
        )
    packages = msgspec.convert(read_toml(done.stdout), _Pylock, strict=False).packages
    return {package.name: _ranked(package) for package in packages}


def _ranked(package: _Package) -> list[Offer]:
    usable = [wheel for wheel in package.wheels if wheel.url and "sha256" in wheel.hashes]
    if not usable:
        raise BadInput(
            f"package '{package.name}' {package.version} has no wheel with a sha256 for this target: "
            "add one with --wheels DIR"
        )
    offers = [Offer(package.name, package.version, wheel.url, wheel.hashes["sha256"]) for wheel in usable]
    return sorted(offers, key=_rank)


def _rank(offer: Offer) -> tuple[bool, bool, bool, str]:
    """Local before the index, for the platform before any, for this Python before the stable interface."""
    _, abi, platform = offer.filename.removesuffix(".whl").rsplit("-", 3)[-3:]
    return (not offer.is_local, platform == "any", abi == "abi3", offer.filename)


def _versions(folder: Path) -> list[str]:
    """`name==version` for each package of which a folder has one version."""
    versions: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*-*-*-*-*.whl")):
        name, version, *_ = path.name.split("-")
        versions.setdefault(name, set()).add(version)
    return [f"{name}=={next(iter(found))}" for name, found in versions.items() if len(found) == 1]


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv; pip's index where uv is not told of one, because many machines configure pip alone."""
    made = {key: value for key, value in environ.items() if key != "VIRTUAL_ENV"}
    made["UV_PYTHON_DOWNLOADS"] = "never"  # to resolve for another Python than those here, it would fetch one
    if any(key in environ for key in _UV_INDEXES):
        return made
    index = environ.get("PIP_INDEX_URL") or _pip_setting("index-url")
    links = (environ.get("PIP_FIND_LINKS") or _pip_setting("find-links") or "").split()
    made |= {"UV_DEFAULT_INDEX": index} if index else {}
    return {"UV_FIND_LINKS": ",".join(links), **made} if links else made


def with_links(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """A command for uv with the places of links of its `environment` too: one that it names itself would hide them.

    Without an index they are left out, so that a folder is asked by itself.
    """
    links = environment.get("UV_FIND_LINKS", "").split(",")
    if "--find-links" not in command or "--no-index" in command:
        return list(command)
    return [*command, *(word for link in links if link for word in ("--find-links", link))]


def _pip_setting(name: str) -> str | None:
    parser = configparser.RawConfigParser()
    try:
        parser.read(str(Path(name).expanduser()) for name in _PIP_CONFIGS)
        return parser.get("global", name, fallback=None)
    except (configparser.Error, UnicodeDecodeError, RuntimeError):
        return None


def _uv() -> str:
    try:
        from uv import find_uv_bin
    except ImportError as error:
        raise BadInput("resolving wheels needs uv: pip install 'edgepack[packager]'") from error
    try:
        return str(find_uv_bin())
    except FileNotFoundError as error:
        raise BadInput(
            f"resolving wheels needs uv, whose program is not beside '{sys.executable}': pip install uv"
        ) from error


def _help(traits: Traits, stderr: str) -> str:
    """What would mend it, where uv found no wheel of some package: with their names."""
    text = re.sub(r"\s+", " ", stderr)
    names = {
        found
        for pattern in (r"(?:because|and) ([A-Za-z0-9._-]+)[^ ]* has no wheels", r"([A-Za-z0-9._-]+) was not found in")
        for found in re.findall(pattern, text, re.IGNORECASE)
    }
    if not names:
        return ""
    missing = ", ".join(f"'{name}'" for name in sorted(names))
    return (
        f"; add a wheel of {missing} for {traits.wheel_platform} and Python {traits.python} with --wheels DIR, or name "
        f'an index that has it: indexes = ["https://…"] in targets/{traits.target.arch}-{traits.target.accel}.toml'
    )


def _away(stderr: str) -> str:
    """The innermost of uv's causes, behind the address that it asked."""
    text = re.sub(r"\s+", " ", stderr).strip()
    url = re.search(r"(?:Failed to fetch: `?|url \()(https?://[^\s`)]+)", text)
    return f"{urlsplit(url[1]).hostname if url else 'it'}: {text.rpartition('cause: ')[2] or text}"[:300]


def _reason(stderr: str) -> str:
    """uv's explanation as one line."""
    text = re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|^\s*[×╰─▶│├]+\s*", "", stderr, flags=re.MULTILINE)).strip()
    return re.sub(r"^error: ", "", text)[:600] or "uv gave no reason"


# The same uv, environment and one-line reasons for whoever else installs or resolves with it.
uv_program, uv_environment, uv_reason = _uv, _environment, _reason
