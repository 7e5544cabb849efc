"""A base of the user's own: `--base`, a target file's or the environment's, with Python in it.

An OCI layout as folder or tar, or a place in a registry. Its layers are taken as they are. Without a lock that pins an
interpreter, no bytecode is made and nothing is compressed anew. `edgepack.lock` keeps the digest of its image: what a
tag points to later changes nothing until that entry is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from arch.traits import Traits
from buildx.image import L4T_LABEL, Foundation
from buildx.lock import LockedGiven
from buildx.survey import Survey, survey
from buildx.wheel_files import Place
from edgepack.errors import BadInput, EdgepackError, NotTrusted
from oci.blob import Blob, FileBlob, SliceBlob, verified
from oci.image import LAYER_GZIP, Image, Index
from oci.layout import Layout
from oci.reference import Reference
from oci.registry import Registry
from oci.source import read_index
from oci.tar import read_tar

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_GLIBC = "2.28"  # what every base with a supported glibc has, where the base does not say its own
_TEGRA = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")


class _Settings(msgspec.Struct):
    env: list[str] | None = msgspec.field(name="Env", default=None)


class _Rootfs(msgspec.Struct):
    diff_ids: list[str]


class _Config(msgspec.Struct):
    rootfs: _Rootfs
    architecture: str = ""
    config: _Settings = msgspec.field(default_factory=_Settings)
    history: list[dict[str, object]] = []


@dataclass(frozen=True)
class Given:
    """A base that was read: what images stand on, the target's traits with what it has, and what to lock."""

    foundation: Foundation
    traits: Traits
    locked: LockedGiven


def given_base(
    where: str,
    traits: Traits,
    cache: Path,
    locked: LockedGiven | None = None,
    connect: Callable[[str], Registry] = Registry,
) -> Given:
    """Read a base for a target. A registry's is pulled into `cache`; the locked one, if it was locked by this name.
    `connect` makes a client of the registry at a host.

    Raises BadInput when it is not there, has no image for the platform, no Python the target can use, or lacks a
    package that the target takes from its base.
    """
    name = _name(where)
    pinned = locked.digest if locked and locked.name == name else None
    image, config = _image(where, traits, cache, pinned, connect)
    seen = survey(image.digest, image.layers, where, cache / "seen")
    minor, place = _python(seen, traits, where)
    _check_packages(seen, traits, where)
    environment = dict(line.partition("=")[::2] for line in config.config.env or [])
    layers = tuple(zip(map(_in_oci_terms, image.layers), config.rootfs.diff_ids, strict=True))
    # engines match history to layers by number, so a base that does not keep to that gives up its own lines
    said = sum(1 for line in config.history if not line.get("empty_layer"))
    history = tuple(config.history) if said == len(layers) else ()
    title = f"{name.rpartition('/')[2]} ({image.digest})"
    foundation = Foundation(title, layers, place, (True,) * len(layers), environment, history)
    found = replace(traits, base=where, python=minor, glibc=seen.glibc or _GLIBC, labels=_labels(seen, traits.labels))
    return Given(foundation, found, LockedGiven(name, str(image.digest)))


def _name(where: str) -> str:
    """What a base is called in the lock: its reference; of a file or folder only the last part, for it may move."""
    return Path(where).resolve().name if Path(where).exists() else where


def _image(
    where: str, traits: Traits, cache: Path, pinned: str | None, connect: Callable[[str], Registry]
) -> tuple[Image, _Config]:
    """The image for a target: in a folder, a tar or a registry, told apart by what lies there."""
    path = Path(where)
    if path.is_dir():
        return _choose(Layout(path).index(), traits, where)
    if path.is_file():
        return _choose(read_tar(path), traits, where)
    try:
        reference = Reference.parse(where)
    except BadInput as error:
        raise BadInput(
            f"--base '{where}' is not there: expected an OCI layout (a folder or a tar), or host/repository:tag"
        ) from error
    kept = _kept(cache, pinned)
    if kept is not None:
        return _choose(Index((kept,)), traits, where)
    with connect(reference.host) as registry:
        source = registry.source(reference.repository, pinned or reference.pointer)
        chosen, config = _choose(read_index(source), traits, where)
        return registry.pull_image(reference.repository, chosen.digest, cache), config


def _kept(cache: Path, pinned: str | None) -> Image | None:
    """The locked image, where an earlier build has pulled it whole: then no registry is asked."""
    if pinned is None:
        return None
    try:
        image = Layout(cache).image(pinned)
        for blob in image.blobs():
            if not Layout(cache).has(blob.descriptor.digest):
                return None
    except EdgepackError:
        return None
    return image


def _choose(index: Index, traits: Traits, where: str) -> tuple[Image, _Config]:
    platform, others = traits.target.platform, []
    for image in index.images:
        if image.platform and image.platform.architecture not in (platform.architecture, ""):
            others.append(image.platform.architecture)
            continue
        try:
            config = msgspec.json.decode(b"".join(verified(image.config)), type=_Config)
        except msgspec.MsgspecError:
            continue  # an artifact, not an image
        if config.architecture == platform.architecture:
            if len(config.rootfs.diff_ids) != len(image.layers):
                raise NotTrusted(f"--base '{where}': the layers of {image.digest} are not those its config names")
            return image, config
        others.append(config.architecture)
    raise BadInput(f"--base '{where}' has no image for {platform}: it has {', '.join(sorted(others)) or 'none'}")


def _in_oci_terms(layer: Blob) -> Blob:
    """The same layer under OCI's media type: a manifest holds docker's or OCI's, not both."""
    said = layer.descriptor
    if said.media_type != _DOCKER_LAYER or not isinstance(layer, FileBlob | SliceBlob):
        return layer
    return replace(layer, descriptor=msgspec.structs.replace(said, media_type=LAYER_GZIP))


def _python(seen: Survey, traits: Traits, where: str) -> tuple[str, Place]:
    """The newest Python of a base that the target can use, one under /usr/local before one of the distribution."""
    allowed = [(folder, minor) for folder, minor in seen.pythons if minor in (traits.pythons or [minor])]
    usable = [(folder, minor) for folder, minor in allowed if _number(minor) >= 10]
    if not usable:
        raise BadInput(f"--base '{where}' {_why_no_python(seen, traits)}")
    folder, minor = max(usable, key=lambda each: ("local" in each[0], _number(each[1])))
    packages = "site-packages" if "local" in folder else "dist-packages"
    site = traits.site or f"usr/local/lib/python{minor}/{packages}"
    return minor, Place(f"/{folder}/python{minor}", site)


def _why_no_python(seen: Survey, traits: Traits) -> str:
    minors = sorted({minor for _, minor in seen.pythons}, key=_number)
    for minor in minors:
        if minor in traits.refused:
            return f"is refused for {traits.target}: {traits.refused[minor]}"
    if traits.pythons:
        wanted = " or ".join(f"{minor} ({release})" for minor, release in traits.pythons.items())
        return f"has Python {', '.join(minors) or 'none'}: {traits.target} needs {wanted}"
    return "has no Python 3.10 or newer in /usr/bin or /usr/local/bin: expected one"


def _check_packages(seen: Survey, traits: Traits, where: str) -> None:
    missing = [name for name in traits.brings if name.lower().replace("_", "-") not in seen.packages]
    if missing:
        raise BadInput(
            f"--base '{where}' has no Python package '{missing[0]}', which images for {traits.target} take from their "
            f"base: use one that has it, or take it out of brings in the target's file"
        )


def _labels(seen: Survey, said: Mapping[str, str]) -> dict[str, str]:
    """The target's labels, with the L4T release that the base has, where it says one and the target does not."""
    match = _TEGRA.search(seen.l4t or "")
    return {**({L4T_LABEL: f"{match[1]}.{match[2]}"} if match else {}), **said}


def _number(minor: str) -> int:
    return int(minor.split(".")[1])
