from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from buildx.entries import file
from buildx.sizes import sizes
from buildx.splice import Stored, write_layer
from oci.blob import BytesBlob, FileBlob
from oci.descriptor import Descriptor
from oci.image import IMAGE_CONFIG, Image, Index
from oci.layout import write_layout
from tests.buildx.parts import make_bundle

SITE = "usr/local/lib/python3.11/dist-packages"
FILES = {
    f"{SITE}/numpy/core.so": bytes(range(256)) * 100,
    f"{SITE}/numpy.libs/blas.so": bytes(range(256)) * 400,
    f"{SITE}/numpy-2.0.dist-info/METADATA": b"Name: numpy",
    f"{SITE}/idna.py": b"x = 1",
    "opt/edgepack/app/edge_agent/agent.py": b"pass",
    "opt/edgepack/bundle/index.json": b"{}",
    "usr/lib/python3.11/json/__init__.py": b"",
    "usr/lib/x86_64-linux-gnu/libc.so.6": b"c" * 5000,
    "etc/passwd": b"root",
}


@pytest.fixture
def image(tmp_path) -> Image:
    made = write_layer([file(path, data) for path, data in FILES.items()], tmp_path / "layer", Stored())
    layer = FileBlob(made.path, Descriptor(made.media_type, made.digest, made.size))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [made.diff_id]}}
    return Image(BytesBlob.of(json.dumps(config).encode(), IMAGE_CONFIG), (layer,))


def test_every_file_belongs_to_one_part_and_a_layers_bytes_are_shared_out(image):
    found = sizes(image, files=2)
    unpacked = {part.name: part.unpacked_bytes for part in found.parts}
    assert unpacked == {
        "numpy": 500 * 256 + 11,
        "C libraries": 5000,
        "idna": 5,
        "edgepack's agent": 4,
        "the bundle": 2,
        "Python's standard library": 0,
        "the rest of the base": 4,
    }
    assert sum(part.packed_bytes for part in found.parts) == pytest.approx(image.layers[0].descriptor.size, abs=10)
    assert [each.name.rpartition("/")[2] for each in found.largest] == ["blas.so", "core.so"]
    assert found.parts[0].name == "numpy"


def inspect(path: Path, *flags: str) -> subprocess.CompletedProcess:
    program = "from edgepack.launch import edgepack; edgepack()"
    command = [sys.executable, "-c", program, "inspect", str(path), "--sizes", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_them_for_people_and_scripts(image, tmp_path):
    write_layout(Index((image,)), tmp_path / "layout")
    said = json.loads(inspect(tmp_path / "layout", "--json").stdout)["images"][0]
    assert said["packed_bytes"] == image.layers[0].descriptor.size
    assert said["parts"][0]["name"] == "numpy"
    lines = inspect(tmp_path / "layout").stdout.splitlines()
    assert lines[2].split()[-1] == "numpy"
    assert any("blas.so" in line for line in lines)


def test_what_is_no_image_is_one_line(tmp_path):
    write_layout(make_bundle(tmp_path / "project"), tmp_path / "bundle")
    done = inspect(tmp_path / "bundle")
    assert done.returncode == 2
    assert "is a bundle: --sizes takes the tar or layout of an image" in done.stderr
    assert len(done.stderr.splitlines()) == 1
