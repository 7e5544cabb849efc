"""Every example, built by both builders, run on both architectures as a user would: read-only root, no capabilities.

Both builders' images of one architecture run beside each other; each answers golden rows, finds itself healthy and
ends when it is told to. The short form runs one example of each native runtime and one with a python step;
EDGEPACK_TEST_EXAMPLES=all runs every one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from oci.image import Image
from oci.tar import read_tar
from tests.images.conftest import EXAMPLE, edgepack_build
from tests.images.containers import Node, assert_answers_as_golden

pytestmark = [pytest.mark.images, pytest.mark.timeout(1500)]
EXAMPLES = EXAMPLE.parent
_SHORT = ("wine-line", "vibration-anomaly", "python-step")
_SHARED = {"direct": "images", "buildx": "buildx_images"}
PLATFORMS = {"amd64": "linux/amd64", "arm64": "linux/arm64/v8"}


@dataclass(frozen=True)
class BuiltExample:
    """An example's folder, and its images: builder → architecture → image."""

    project: Path
    images: dict[str, dict[str, Image]]


@pytest.fixture(
    scope="module",
    params=["wine-line", "vibration-anomaly", "digits-camera", "python-step", "byop-clusters", "ads-churn"],
)
def example(request, tmp_path_factory) -> Iterator[BuiltExample]:
    if request.param not in _SHORT and os.environ.get("EDGEPACK_TEST_EXAMPLES") != "all":
        pytest.skip(f"'{request.param}' is part of the long form: set EDGEPACK_TEST_EXAMPLES=all")
    node = request.getfixturevalue("containerd_node")
    if request.param == EXAMPLE.name:  # other tests have had it built
        shared = {builder: request.getfixturevalue(name) for builder, name in _SHARED.items()}
        yield BuiltExample(request.getfixturevalue("project"), shared)
        return
    project = Path(shutil.copytree(EXAMPLES / request.param, tmp_path_factory.mktemp("example") / request.param))
    images = {}
    for builder in _SHARED:
        out = project.parent / f"{builder}.tar"
        flags = ["--arch", "x86", "--arch", "arm", "--builder", builder, "-o", str(out)]
        edgepack_build(project, *flags, environ=node.engine.environ)
        images[builder] = {image.platform.architecture: image for image in read_tar(out).images}
    yield BuiltExample(project, images)
    shutil.rmtree(project.parent)
    node.prune()


def answer(node: Node, example: BuiltExample, arch: str) -> None:
    names = []
    for builder, images in example.images.items():
        names.append(f"{example.project.name}-{builder}:{arch}")
        node.client.load(images[arch], names[-1])
    with node.serving_all(names, PLATFORMS[arch]) as urls:
        for url in urls:
            assert_answers_as_golden(url, example.project)


def test_an_examples_images_of_both_builders_answer_on_this_machine(containerd_node, example):
    answer(containerd_node, example, "amd64")


def test_an_examples_images_of_both_builders_answer_on_arm_under_an_emulator(containerd_node, arm, example):
    answer(containerd_node, example, "arm64")
