"""Every `--compression`, as foreign tools read it: docker, skopeo and umoci find one and the same file tree."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from buildx.zstd import LAYER_ZSTD
from oci.layout import Layout, write_layout
from oci.tar import Tar, read_tar
from oci.validate import examine
from tests.buildx.parts import agent_wheels
from tests.images.conftest import edgepack_build
from tests.images.containers import Node

pytestmark = pytest.mark.images
COMPRESSIONS = ("splice", "gzip", "zstd")


@pytest.fixture(scope="module")
def files(project, tmp_path_factory) -> dict[str, Path]:
    """An image for each compression, on the real base; its wheels are small stand-ins, for gzip's level takes long."""
    folder = tmp_path_factory.mktemp("compressions")
    own = Path(shutil.copytree(project, folder / project.name))  # the stand-ins are locked in it
    flags = ["--arch", "x86", "--wheels", str(agent_wheels(folder / "wheels"))]
    for name in COMPRESSIONS:
        edgepack_build(own, *flags, "--compression", name, "-o", str(folder / f"{name}.tar"))
    return {name: folder / f"{name}.tar" for name in COMPRESSIONS}


def test_each_is_sound_to_the_tar_inside_every_layer(files):
    for name, path in files.items():
        report = examine(Tar(path))
        assert (report.faults, report.unchecked_layers) == ((), 0), name
    kinds = {layer.descriptor.media_type for layer in read_tar(files["zstd"]).images[0].layers}
    assert LAYER_ZSTD in kinds


def digest_of(tar: tarfile.TarFile) -> dict[str, tuple]:
    """Path → what a file tree consists of."""
    found = {}
    for member in tar:
        content = tar.extractfile(member) if member.isfile() else None
        digest = hashlib.sha256(content.read()).hexdigest() if content else ""
        found[member.name.strip("/")] = (member.type, member.mode, member.uid, member.gid, member.linkname, digest)
    return found


def test_docker_loads_each_and_finds_the_same_files(node: Node, files):
    trees = []
    for path in files.values():
        node.engine.docker("load", "-i", str(path))
        container = node.client.client.containers.create("wine-line:x86-none", network_mode="none")
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
            trees.append(digest_of(tar))
        container.remove(v=True)
        # an engine that has a config takes another image with the same one for present
        node.client.client.images.remove("wine-line:x86-none", force=True)
    assert "usr/bin/python3.11" in trees[0]
    assert trees[0] == trees[1] == trees[2]


@pytest.fixture(scope="module")
def layouts(files, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    for name, path in files.items():
        write_layout(read_tar(path), folder / name)
    return {name: folder / name for name in files}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    return found


def test_skopeo_copies_each_without_changing_a_byte(layouts, tmp_path):
    for name, layout in layouts.items():
        out = tmp_path / name
        done = subprocess.run(
            [tool("skopeo"), "--insecure-policy", "copy", f"oci:{layout}", f"oci:{out}:x"],
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert Layout(out).index("x").images[0].digest == Layout(layout).index().images[0].digest


def test_umoci_unpacks_the_gzip_kinds_to_the_same_files_and_knows_no_zstd(layouts, tmp_path):
    trees = {}
    for name, layout in layouts.items():
        tagged, out = Path(shutil.copytree(layout, tmp_path / name)), tmp_path / f"{name}-unpacked"
        index = json.loads((tagged / "index.json").read_text())
        index["manifests"][0].setdefault("annotations", {})["org.opencontainers.image.ref.name"] = "x"
        (tagged / "index.json").write_text(json.dumps(index))
        command = [tool("umoci"), "unpack", "--rootless", "--image", f"{tagged}:x", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
        if name == "zstd":
            assert done.returncode != 0, "umoci reads zstd now: have its files compared too"
            assert "mediatype" in done.stderr, done.stderr
            continue
        assert done.returncode == 0, f"{name}: {done.stderr}"
        root = out / "rootfs"
        trees[name] = {
            str(path.relative_to(root)): path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
            for path in sorted(root.rglob("*"))
        }
    assert trees["gzip"] == trees["splice"]
    assert "usr/bin/python3.11" in trees["splice"]
