"""Unpacked bundles: whole or not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bundle import media
from bundle.bundle import Bundle, bundles
from bundle.store import OpenBundle, faults, unpack
from edgepack.errors import BadInput, NotTrusted
from oci.blob import BytesBlob
from oci.layout import write_layout
from tests import make


def test_an_unpacked_bundle_reads_back(tmp_path: Path) -> None:
    bundle = make.small_bundle(tmp_path)
    folder = unpack(bundle, tmp_path / "bundles")
    opened = OpenBundle(folder)
    assert folder.name == bundle.digest.removeprefix("sha256:")
    assert opened.spec == bundle.spec
    assert opened.input.to_dict() == {"tensor": "list<float32>[3]"}
    assert opened.output.to_dict() == {"y": "list<float32>[1]"}
    assert opened.file("models/linear/model.onnx").read_bytes() == make.linear().SerializeToString()
    golden = opened.golden()
    assert golden.rows == 4 and golden.outputs is not None
    assert faults(folder) == []


def test_files_are_read_only_and_nothing_else_lies_about(tmp_path: Path) -> None:
    folder = make.open_folder(tmp_path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)) for path in files} == {
        "manifest.json",
        "pipeline.json",
        "golden.json",
        "models/linear/model.onnx",
    }
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_unpacking_twice_keeps_the_folder_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    bundle = make.small_bundle(tmp_path)
    folder = unpack(bundle, tmp_path / "bundles")
    inode = folder.stat().st_ino
    assert unpack(bundle, tmp_path / "bundles").stat().st_ino == inode
    model = folder / "models/linear/model.onnx"
    model.chmod(0o644)
    model.write_bytes(b"damaged")
    assert "models/linear/model.onnx" in faults(folder)[0]
    unpack(bundle, tmp_path / "bundles")
    assert faults(folder) == []


def test_a_damaged_blob_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    bundle = make.small_bundle(tmp_path)
    said = bundle.image.layers[0].descriptor
    spoiled = replace(bundle.image, layers=(BytesBlob(b"x" * said.size, said), *bundle.image.layers[1:]))
    with pytest.raises(NotTrusted, match=said.digest):
        unpack(Bundle.from_image(spoiled, bundle.index_digest), tmp_path / "bundles")
    assert list((tmp_path / "bundles").iterdir()) == []


def test_what_a_cut_left_behind_does_not_stop_the_next_unpacking(tmp_path: Path) -> None:
    bundle = make.small_bundle(tmp_path)
    left = tmp_path / "bundles" / f".{bundle.digest.removeprefix('sha256:')}.part"
    left.mkdir(parents=True)
    (left / "golden.json").write_bytes(b"half")
    assert faults(unpack(bundle, tmp_path / "bundles")) == []
    assert not left.exists()


def test_blobs_of_a_store_are_linked_and_verified(tmp_path: Path) -> None:
    layout = write_layout(make.bundle_index(tmp_path), tmp_path / "layout")
    bundle = bundles(layout.index())[0]
    folder = unpack(bundle, tmp_path / "bundles", link=True)
    blob = layout.path(bundle.spec.steps[0].sha256 and f"sha256:{bundle.spec.steps[0].sha256}")
    assert (folder / bundle.spec.steps[0].model).samefile(blob)
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    with pytest.raises(NotTrusted):
        unpack(bundle, tmp_path / "elsewhere", link=True)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "models", "no-such-file", ""])
def test_an_open_bundle_gives_only_its_own_files(path: str, tmp_path: Path) -> None:
    folder = make.open_folder(tmp_path)
    (folder.parent / "secret").write_bytes(b"x")
    with pytest.raises(BadInput):
        OpenBundle(folder).file(path)


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    folder = make.open_folder(tmp_path)
    (folder / "link").symlink_to(folder / media.SPEC_FILE)
    with pytest.raises(BadInput):
        OpenBundle(folder).file("link")


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not an unpacked bundle"):
        OpenBundle(tmp_path)
    assert "manifest.json" in faults(tmp_path)[0]
