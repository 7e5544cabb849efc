"""One build in a process of its own, so that its cost can be counted: `python -m bench.build_once ORDER`.

ORDER is JSON: source, output, builder (direct, cross or emulated), bytecode, cached. Prints what was built as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import buildx.docker_build
from arch.target import Target, plain_targets
from buildx import Options, Quiet, Workplace, build
from buildx.dockerfile import RECIPE, Recipe, Workshop
from edgepack.commands.cache import cache_folder
from packager.package import package
from packager.project import Project

_PIP = """
import glob, runpy, sys
sys.path.insert(0, "/recipe/pip.whl")
sys.argv = ["pip", "install", "-q", "--no-index", "--no-deps", "--root-user-action=ignore", *sys.argv[1:]]
sys.argv += glob.glob("/given/*.whl")
runpy.run_module("pip", run_name="__main__")
"""


class EmulatedRecipe(Recipe):
    """What a Dockerfile does that installs with pip on the target's platform: every RUN is emulated."""

    def _cross_stages(self, workshop: Workshop) -> Iterator[str]:
        yield "FROM scratch AS workshop"
        yield from (f"ADD {path} /" for path in self.base)
        yield f"COPY {RECIPE}/ /{RECIPE}/"
        yield f"ENV PYTHONPATH=/{RECIPE} PYTHONDONTWRITEBYTECODE=1"
        for stage in workshop.stages:
            how = "bytecode" if self.bytecode else "plain"
            command = [self.place.python, "-s", "-m", "buildx.workshop", "/given", "/out", self.place.site, how]
            if stage.name != "agent":
                flags = [] if self.bytecode else ["--no-compile"]
                command = [self.place.python, "-c", _PIP, *flags, "--target", f"/out/{self.place.site}"]
            yield f"\nFROM workshop AS {stage.name}"
            yield f"RUN --mount=type=bind,source={stage.folder},target=/given {json.dumps(command)}"


def pip_wheel() -> Path | None:
    """The wheel of pip that Python brings for `ensurepip`."""
    folders = [
        Path(sys.base_prefix, f"lib/python3.{sys.version_info[1]}/ensurepip/_bundled"),
        Path("/usr/share/python-wheels"),
    ]
    return next((path for folder in folders for path in sorted(folder.glob("pip-*.whl"))), None)


def _emulate() -> None:
    modules, wheel = buildx.docker_build._modules, pip_wheel()
    assert wheel is not None, "no wheel of pip is on this machine"

    def with_pip(recipe: Path) -> None:
        modules(recipe)
        shutil.copy(wheel, recipe / "pip.whl")

    buildx.docker_build._modules = with_pip
    buildx.docker_build.Recipe = EmulatedRecipe  # type: ignore[misc]


def main(order: dict) -> None:
    if order["builder"] == "emulated":
        _emulate()
    started = time.perf_counter()
    project = Project.open(Path(order["source"]))
    packaged = package(project, plain_targets())
    options = Options(
        project.root,
        project.root,
        Path(order["output"]),
        layer_cache=order["cached"],
        builder="direct" if order["builder"] == "direct" else "buildx",
        bytecode=order["bytecode"],
    )
    built = build(packaged.index, [Target("arm")], options, Workplace(cache_folder(os.environ), os.environ), Quiet())
    image = built.images[0].image
    blobs = {blob.descriptor.digest: blob.descriptor.size for blob in (*image.blobs(), image.manifest)}
    print(json.dumps({"seconds": time.perf_counter() - started, "blobs": blobs}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
