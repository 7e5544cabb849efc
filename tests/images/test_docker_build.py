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

from oci.blob import BytesBlob
from oci.image import IMAGE_CONFIG, Image, Index
from oci.layout import write_layout
from oci.tar import Tar, read_tar
from oci.validate import validate
from tests.images.conftest import edgepack_build

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


def test_both_builders_make_the_same_files_for_both_architectures(images, buildx_images):
    for arch, image in buildx_images.items():
        assert tree(image) == tree(images[arch])


def test_both_builders_say_the_same_of_the_image(images, buildx_images):
    for arch, image in buildx_images.items():
        ours, docker = config(images[arch])["config"], config(image)["config"]
        assert {key: docker.get(key) for key in ours} == ours
        assert (config(image)["architecture"], config(image)["created"]) == (arch, config(images[arch])["created"])


def test_the_file_is_sound_and_the_report_names_the_builder_and_each_layer(by_docker):
    assert validate(Tar(Path(by_docker["path"]))) == []
    assert [each["builder"] for each in by_docker["images"]] == ["buildx", "buildx"]
    for each in by_docker["images"]:
        kinds = [layer["kind"] for layer in each["layers"]]
        assert (kinds[0], kinds[-2:]) == ("base", ["agent", "bundle"])


def test_an_engine_with_a_format_of_its_own_loads_the_image_and_gives_a_sound_file(overlay_node, images, project):
    out = project.parent / "overlay.tar"
    flags = ["--arch", "x86", "--builder", "buildx", "-o", str(out)]
    edgepack_build(project, *flags, environ=overlay_node.engine.environ)
    assert validate(Tar(out)) == []
    assert tree(read_tar(out).images[0]) == tree(images["amd64"])
    assert overlay_node.client.client.images.get("wine-line:x86-none").id


def test_a_base_for_the_target_alone_is_enough_for_both_builders_and_their_files_are_equal(
    containerd_node, images, project, tmp_path
):
    """What Jetson bases are like: ARM only, and built on x86. Nothing of it is run."""
    arm = images["arm64"]
    said = config(arm)
    said = {
        "architecture": "arm64",
        "os": "linux",
        "rootfs": {**said["rootfs"], "diff_ids": said["rootfs"]["diff_ids"][:1]},
    }
    base = Image(BytesBlob.of(json.dumps(said).encode(), IMAGE_CONFIG), arm.layers[:1], platform=arm.platform)
    write_layout(Index((base,)), tmp_path / "base")
    found = {}
    for builder in ("direct", "buildx"):
        out = tmp_path / f"{builder}.tar"
        flags = ["--arch", "arm", "--base", str(tmp_path / "base"), "--builder", builder, "-o", str(out)]
        told = edgepack_build(project, *flags, environ=containerd_node.engine.environ)
        assert told["builder"] == builder
        assert validate(Tar(out)) == []
        found[builder] = read_tar(out).images[0]
    assert found["buildx"].platform.architecture == "arm64"
    assert tree(found["buildx"]) == tree(found["direct"])


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
