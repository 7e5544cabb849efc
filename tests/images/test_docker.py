"""What only an engine can show: it takes our file and our images, and they serve without further flags."""

from __future__ import annotations

import json

import pytest

from edgepack.errors import BuildFailed
from oci.blob import BytesBlob
from oci.image import IMAGE_CONFIG, Image
from tests.images.conftest import edgepack_build
from tests.images.containers import assert_answers_as_onnxruntime

pytestmark = pytest.mark.images


def test_docker_loads_the_file_and_the_image_answers_as_onnxruntime(node, direct, project):
    node.engine.docker("load", "-i", direct["amd64"]["path"])
    assert json.loads(node.engine.docker("inspect", "wine-line:x86-none"))[0]["Config"]["User"] == "65532:65532"
    with node.serving("wine-line:x86-none", "linux/amd64") as url:
        assert_answers_as_onnxruntime(url, project)


def test_build_with_load_gives_the_engine_each_image_under_its_own_name(node, project):
    edgepack_build(project, "--arch", "x86", "--arch", "arm", "--load", environ=node.engine.environ)
    said = [json.loads(node.engine.docker("inspect", f"wine-line:{arch}-none"))[0] for arch in ("x86", "arm")]
    assert [each["Architecture"] for each in said] == ["amd64", "arm64"]


def test_an_image_that_the_engine_does_not_take_is_one_line(node, images):
    layer = images["amd64"].layers[-1]
    config = BytesBlob.of(
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', IMAGE_CONFIG
    )
    with pytest.raises(BuildFailed, match=r"^the docker engine does not load 'broken:1': [^\n]+$"):
        node.client.load(Image(config, (layer,)), "broken:1")
