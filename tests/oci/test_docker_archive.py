from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from edgepack.errors import BadInput, NotTrusted
from oci.docker_archive import read_saved
from oci.image import Index
from oci.tar import Tar, write_tar
from oci.validate import validate

LAYER = tarfile.TarInfo("hello").tobuf() + bytes(1024)
DIFF_ID = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
CONFIG = {"architecture": "arm64", "os": "linux", "variant": "v8", "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]}}


def saved(path: Path, files: dict[str, bytes] | None = None, **changes: object) -> Path:
    """A tar as `docker save` of an old engine writes it."""
    manifest = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar"]}]
    contents = {
        "a/layer.tar": LAYER,
        "c.json": json.dumps({**CONFIG, **changes}).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        **(files or {}),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_what_docker_saved_becomes_a_sound_image_of_ours(tmp_path):
    image = read_saved(saved(tmp_path / "saved.tar"))
    assert (image.platform.architecture, image.platform.variant) == ("arm64", "v8")
    write_tar(Index((image,)), tmp_path / "ours.tar", "x:1")
    assert validate(Tar(tmp_path / "ours.tar")) == []


def test_a_layer_that_is_not_the_configs_is_refused(tmp_path):
    wrong = {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}
    with pytest.raises(NotTrusted, match="layers that are not those its config names"):
        read_saved(saved(tmp_path / "saved.tar", rootfs=wrong))


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": b"[]"},
        {"manifest.json": b"{"},
        {"c.json": b"[]"},
        {"manifest.json": b'[{"Config":"x","Layers":[]}]'},
    ],
    ids=["no image", "no JSON", "no config", "a config that is missing"],
)
def test_another_tar_is_refused_in_one_line(tmp_path, files):
    with pytest.raises(BadInput, match=r"^'[^\n]*saved.tar' is not one image as `docker save` writes it: [^\n]*$"):
        read_saved(saved(tmp_path / "saved.tar", files))
