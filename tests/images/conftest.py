"""One engine of each kind and the example's images, shared by all tests of this folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildx.engine import Engine as Client
from oci.image import Image
from oci.tar import read_tar
from tests.images.containers import Node
from tests.images.engine import NoEngine, arm_emulation, running

EXAMPLE = Path(__file__).parents[2] / "examples/wine-line"
_nodes: list[Node] = []  # the engines that run


def edgepack_build(project: Path, *arguments: str, environ: dict[str, str] | None = None) -> dict:
    """Run the real command; its one object, the path in full."""
    command = [
        sys.executable,
        "-c",
        "from edgepack.launch import edgepack; edgepack()",
        "build",
        str(project),
        "--json",
    ]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        cwd=project.parent,
        env=environ or os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return {**said, "path": said["path"] and str(project.parent / said["path"])}


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("project") / "wine-line"))


@pytest.fixture(scope="session")
def direct(project) -> dict[str, dict]:
    """What the direct builder makes: platform's architecture → the object of `--json`."""
    return {
        arch: edgepack_build(project, "--arch", name, "-o", str(project.parent / f"{arch}.tar"))
        for arch, name in (("amd64", "x86"), ("arm64", "arm"))
    }


@pytest.fixture(scope="session")
def images(direct) -> dict[str, Image]:
    return {arch: read_tar(Path(said["path"])).images[0] for arch, said in direct.items()}


@pytest.fixture(scope="session")
def by_docker(containerd_node, project) -> dict:
    """What docker buildx makes, of both architectures in one file."""
    flags = ["--arch", "x86", "--arch", "arm", "--builder", "buildx", "-o", str(project.parent / "buildx.tar")]
    return edgepack_build(project, *flags, environ=containerd_node.engine.environ)


@pytest.fixture(scope="session")
def buildx_images(by_docker) -> dict[str, Image]:
    return {image.platform.architecture: image for image in read_tar(Path(by_docker["path"])).images}


def _started(containerd_store: bool) -> Iterator[Node]:
    try:
        with running(containerd_store=containerd_store) as engine:
            client = Client.connect(engine.environ)
            _nodes.append(Node(engine, client))
            yield _nodes[-1]
            _nodes.pop()
            client.close()
    except NoEngine as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def nothing_left_in_engines() -> Iterator[None]:
    """What the tests of a file loaded and built does not stay."""
    yield
    for node in _nodes:
        node.prune()


@pytest.fixture(scope="session")
def containerd_node() -> Iterator[Node]:
    """An engine that keeps images as they are, and so writes OCI."""
    yield from _started(True)


@pytest.fixture(scope="session")
def overlay_node() -> Iterator[Node]:
    """An engine with its own image format."""
    yield from _started(False)


@pytest.fixture(params=["containerd_node", "overlay_node"])
def node(request) -> Node:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def arm() -> Iterator[None]:
    """ARM programs run on this machine."""
    try:
        with arm_emulation():
            yield
    except NoEngine as error:
        pytest.skip(str(error))
