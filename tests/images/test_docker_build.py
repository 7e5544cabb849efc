"""The docker buildx builder with a real engine: its images hold what the direct builder's hold, and answer the same."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from oci.image import Image
from oci.tar import Tar, read_tar
from oci.validate import validate
from tests.images.conftest import edgepack_build
from tests.images.containers import assert_answers_as_onnxruntime

pytestmark = pytest.mark.images


def tree(image: Image) -> dict[str, tuple]:
    """Every path of an image: kind, mode, owner, link target, content. Times are the builder's own affair."""
    found = {}
    for layer in image.layers:
        with layer.open() as packed:
            data = packed.read()
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                content = tar.extractfile(member).read() if member.isfile() else b""
                kind = "file" if member.isfile() else "folder" if member.isdir() else "link"
                digest = hashlib.sha256(content).hexdigest()
                mode = None if kind == "link" else member.mode
                found[member.name.strip("/")] = (kind, mode, member.uid, member.gid, member.linkname, digest)
    found.pop("", None)
    return found


def config(image: Image) -> dict:
    with image.config.open() as file:
        said = json.load(file)
    said["config"]["Env"].sort()
    return said


@pytest.fixture(scope="module")
def built(containerd_node, project) -> dict:
    out = project.parent / "buildx.tar"
    flags = ["--arch", "x86", "--arch", "arm", "--builder", "buildx", "-o", str(out)]
    return edgepack_build(project, *flags, environ=containerd_node.engine.environ)


@pytest.fixture(scope="module")
def buildx_images(built) -> dict[str, Image]:
    return {image.platform.architecture: image for image in read_tar(Path(built["path"])).images}


def test_both_builders_make_the_same_files_for_both_architectures(images, buildx_images):
    for arch, image in buildx_images.items():
        assert tree(image) == tree(images[arch])


def test_both_builders_say_the_same_of_the_image(images, buildx_images):
    for arch, image in buildx_images.items():
        ours, docker = config(images[arch])["config"], config(image)["config"]
        assert {key: docker.get(key) for key in ours} == ours
        assert (config(image)["architecture"], config(image)["created"]) == (arch, config(images[arch])["created"])


def test_the_file_is_sound_and_the_report_names_the_builder_and_each_layer(built):
    assert validate(Tar(Path(built["path"]))) == []
    assert [each["builder"] for each in built["images"]] == ["buildx", "buildx"]
    for each in built["images"]:
        kinds = [layer["kind"] for layer in each["layers"]]
        assert (kinds[0], kinds[-2:]) == ("base", ["agent", "bundle"])


def test_the_images_answer_as_onnxruntime_on_both_architectures(containerd_node, arm, buildx_images, project):
    for arch, platform in (("amd64", "linux/amd64"), ("arm64", "linux/arm64/v8")):
        containerd_node.client.load(buildx_images[arch], f"by-buildx:{arch}")
        with containerd_node.serving(f"by-buildx:{arch}", platform) as url:
            assert_answers_as_onnxruntime(url, project)


def test_an_engine_with_a_format_of_its_own_loads_the_image_and_gives_a_sound_file(overlay_node, images, project):
    out = project.parent / "overlay.tar"
    flags = ["--arch", "x86", "--builder", "buildx", "-o", str(out)]
    edgepack_build(project, *flags, environ=overlay_node.engine.environ)
    assert validate(Tar(out)) == []
    assert tree(read_tar(out).images[0]) == tree(images["amd64"])
    assert overlay_node.client.client.images.get("wine-line:x86-none").id


def test_without_an_engine_the_missing_piece_is_named_and_nothing_is_written(containerd_node, project, tmp_path):
    environ = {
        **containerd_node.engine.environ,
        "DOCKER_HOST": f"unix://{tmp_path}/none",
        "BUILDX_CONFIG": str(tmp_path),
    }
    command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", "build", str(project)]
    done = subprocess.run(
        [*command, "--builder", "buildx"], capture_output=True, text=True, env=environ, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert "docker" in line and "use --builder direct" in line
    assert not (tmp_path / "dist").exists()
