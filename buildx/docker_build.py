"""The second builder: the same layers by way of `docker buildx build`, for teams whose images come from docker.

It writes a context and a Dockerfile (`dockerfile.py`), has it built, and reads the image back, so that all that
follows is as with the direct builder. The engine writes an OCI layout where its image store can; else it loads the
image and is asked for what it then holds.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from arch.target import Target
from buildx.agent_layer import agent_entries
from buildx.created import Created
from buildx.docker_cli import DockerCli
from buildx.dockerfile import RECIPE, Recipe, Stage, Workshop
from buildx.engine import Engine
from buildx.image import Foundation
from buildx.layer_cache import Layer
from buildx.layers import WheelGroup
from buildx.outcome import BuiltImage, LayerLine
from buildx.report import Report
from buildx.splice import Stored, write_layer
from buildx.workshop import MODULES
from edgepack.errors import BuildFailed
from oci.blob import Blob, BytesBlob, verified
from oci.descriptor import Descriptor, PlatformField
from oci.docker_archive import read_saved
from oci.image import Image
from oci.tar import read_tar


@dataclass(frozen=True)
class Parts:
    """What the layers of one image are made of: those of `groups` and of the agent in the workshop, which is the base
    for the machine that builds, then those that are `ready`. Without a workshop all are ready.
    """

    foundation: Foundation
    workshop: Foundation | None
    groups: Sequence[WheelGroup]
    ready: Sequence[Layer]
    bytecode: bool


class DockerBuild:
    """Builds orders below a scratch folder, which must stay until the images were written somewhere."""

    def __init__(self, engine: Engine, cli: DockerCli, scratch: Path, report: Report) -> None:
        self._engine, self._cli, self._scratch, self._report = engine, cli, scratch, report
        self._writes_oci = engine.keeps_oci or cli.driver != "docker"
        if not self._writes_oci:
            report.notice(
                f"docker engine {engine.version} keeps its own image format: the image is loaded into it, and the file "
                "has layers that are not compressed; with containerd's image store it would write OCI"
            )

    @classmethod
    def find(cls, environ: Mapping[str, str], scratch: Path, report: Report, *, shown: bool) -> DockerBuild:
        """Look for all that is needed. Raises BadInput that names the first piece that is missing."""
        cli = DockerCli.find(environ, shown=shown)
        return cls(Engine.connect(environ), cli, scratch, report)

    @property
    def host(self) -> Target:
        """The plain target of the machine that builds."""
        return self._engine.host

    def image(self, target: Target, reference: str, plain: Image, parts: Parts, created: Created) -> BuiltImage:
        """Build one image. `plain` is the image as it would be without layers: what the Dockerfile is to say.

        Raises BuildFailed with the builder's last words.
        """
        folder = self._scratch / reference.replace(":", "-")
        context = folder / "context"
        context.mkdir(parents=True)
        write_context(context, parts, _config(plain))
        self._report.step(f"docker buildx build of {reference}")
        epoch = int(created.time.timestamp())
        image = _under(self._built(folder, str(target.platform), reference, epoch), plain.platform)
        return BuiltImage(target, reference, image, tuple(_lines(image, parts)))

    def _built(self, folder: Path, platform: str, reference: str, epoch: int) -> Image:
        made = folder / "image.tar"
        if not self._writes_oci:
            self._cli.build(folder / "context", platform, ["--load", f"--tag={reference}"], epoch)
            self._engine.save(reference, made)
            return read_saved(made)
        self._cli.build(folder / "context", platform, [f"--output=type=oci,dest={made},rewrite-timestamp=true"], epoch)
        images = read_tar(made).images
        if len(images) != 1:
            raise BuildFailed(f"docker buildx build gave {len(images)} images, expected one: use --builder direct")
        return images[0]


def write_context(context: Path, parts: Parts, config: Mapping[str, Any]) -> None:
    """Write all that the build reads, and the Dockerfile, which says `config` of the image."""
    base = _base(parts.foundation, context, "base")
    ready = [_ready(layer, context, number) for number, layer in enumerate(parts.ready)]
    workshop = _workshop(parts, context, base) if parts.workshop else None
    recipe = Recipe(workshop, base, ready, parts.foundation.place, parts.bytecode, config)
    (context / "Dockerfile").write_text(recipe.text(), "utf-8")


def _workshop(parts: Parts, context: Path, base: Sequence[str]) -> Workshop:
    """Where docker's RUN lines run, and what each of them makes."""
    assert parts.workshop is not None  # noqa: S101 - the caller asks for one only then
    own = base if parts.workshop is parts.foundation else _base(parts.workshop, context, "workshop")
    stages = [_wheels(group, context, number) for number, group in enumerate(parts.groups)]
    stages.append(_agent(context, parts.foundation.place.python))
    _modules(context / RECIPE)
    return Workshop(own, parts.workshop.place.python, stages)


def _ready(layer: Layer, context: Path, number: int) -> str:
    name = f"layer-{number}.tar.gz"
    _place(layer.blob, context / name)
    return name


def _base(foundation: Foundation, context: Path, name: str) -> list[str]:
    paths = []
    for number, (blob, _) in enumerate(foundation.layers):
        paths.append(f"{name}-{number}.tar")  # docker tells a compressed tar by its first bytes
        _place(blob, context / paths[-1])
    return paths


def _wheels(group: WheelGroup, context: Path, number: int) -> Stage:
    folder = context / f"wheels-{number}"
    folder.mkdir()
    for path in group.paths:
        _link(path, folder / path.name)
    return Stage(f"wheels-{number}", folder.name)


def _agent(context: Path, python: str) -> Stage:
    folder = context / "agent"
    folder.mkdir()
    write_layer(agent_entries(python), folder / "agent.tar.gz", Stored())
    return Stage("agent", folder.name)


def _modules(recipe: Path) -> None:
    """The modules that `buildx.workshop` needs, under packages that import nothing."""
    names = [f"buildx.{name}" for name in MODULES] + ["edgepack.errors"]
    for name in names:
        path = recipe / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(inspect.getsource(import_module(name)), "utf-8")


def _place(blob: Blob, path: Path) -> None:
    """Copy a blob, checked on the way."""
    with path.open("wb") as file:
        file.writelines(verified(blob))


def _link(source: Path, path: Path) -> None:
    """The same file under another name where the file system can, else a copy: wheels may be gigabytes."""
    try:
        os.link(source, path)
    except OSError:
        path.write_bytes(source.read_bytes())


def _config(plain: Image) -> dict[str, Any]:
    config: dict[str, Any] = msgspec.json.decode(b"".join(verified(plain.config)))["config"]
    return config


def _under(image: Image, platform: PlatformField | None) -> Image:
    """An image under the platform that it is for, and without what the builder notes beside it, which has a time."""
    said = image.manifest
    known = {blob.descriptor.digest: blob for blob in image.layers}
    # in memory: what the image says is asked for when the scratch folder is gone
    known[image.config.descriptor.digest] = BytesBlob(b"".join(verified(image.config)), image.config.descriptor)
    descriptor = Descriptor(said.descriptor.media_type, said.descriptor.digest, said.descriptor.size, platform=platform)
    return Image.of_manifest(BytesBlob(said.data, descriptor), lambda wanted: known[wanted.digest])


def _lines(image: Image, parts: Parts) -> list[LayerLine]:
    """What to report of each layer. The engine does not say which it had in its own cache."""
    kinds = [("base", parts.foundation.title)] * len(parts.foundation.layers)
    kinds += [(group.kind, group.title) for group in parts.groups]
    kinds += [("agent", "edgepack-agent")] if parts.workshop else []
    kinds += [(layer.kind, layer.title) for layer in parts.ready]
    if len(kinds) != len(image.layers):
        raise BuildFailed(
            f"docker buildx build gave an image of {len(image.layers)} layers, expected {len(kinds)}: "
            "use --builder direct"
        )
    return [
        LayerLine(layer.descriptor.digest, layer.descriptor.size, kind, False, title)
        for layer, (kind, title) in zip(image.layers, kinds, strict=True)
    ]
