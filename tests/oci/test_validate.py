"""`validate` finds each fault that is planted, names the blob, and finds all of them in one run."""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys

import msgspec
import pytest
import zstandard

from edgepack.errors import Unreachable
from oci import BytesBlob, Descriptor, Digest, Image, Index, PlatformField
from oci.image import IMAGE_CONFIG, LAYER_GZIP
from oci.layout import Layout, write_layout
from oci.tar import Tar, write_tar
from oci.validate import Fault, examine, validate
from tests.oci.make_images import ONE, TWO, artifact, bundle, gzip_layer, image, tar_of


@pytest.fixture
def layout(tmp_path) -> Layout:
    return write_layout(TWO, tmp_path / "layout", "two:v1")


def own_layer(index: Index, number: int = 0) -> Descriptor:
    return index.images[number].layers[1].descriptor


def with_config(**changes: object) -> Index:
    """ONE, its config changed; everything above follows."""
    old = ONE.images[0]
    config = {**json.loads(old.config.open().read()), **changes}
    changed = BytesBlob.of(json.dumps(config).encode(), IMAGE_CONFIG)
    return Index((dataclasses.replace(old, config=changed),))


def with_layer(blob: BytesBlob, diff_id: str) -> Index:
    """ONE with one layer, of which the config says this diff_id."""
    changed = with_config(rootfs={"type": "layers", "diff_ids": [diff_id]}).images[0]
    return Index((dataclasses.replace(changed, layers=(blob,)),))


def test_a_sound_index_has_no_fault_and_its_bytes_are_counted(layout):
    report = examine(layout)
    assert report.faults == ()
    assert (report.images, report.blobs) == (2, 8)  # 3 layers, 2 configs, 2 manifests, 1 index
    assert report.size_bytes == sum(path.stat().st_size for path in (layout.folder / "blobs/sha256").iterdir())


def test_each_blob_is_read_once(layout):
    read: list[str] = []
    examine(layout, lambda descriptor: read.append(descriptor.digest))
    assert len(read) == len(set(read)) == 8


@pytest.mark.parametrize("index", [ONE, TWO, bundle(), Index((artifact(), artifact(b"r", ONE.images[0])))])
def test_images_and_artifacts_in_memory_are_sound(index):
    assert validate(index) == []


def test_what_is_said_of_an_image_lies_beside_it_and_is_proven_with_it(layout):
    report = artifact(b"sbom", subject=TWO.images[0])
    signature = artifact(b"signature", subject=report)
    for said in (signature, report):
        for blob in (*said.blobs(), said.manifest):
            layout.add(blob)
    found = examine(layout)
    assert (found.faults, found.images, found.referrers) == ((), 4, 2)
    layout.path(report.layers[0].descriptor.digest).unlink()
    assert validate(layout) == [Fault(report.layers[0].descriptor.digest, "is missing")]


def test_a_blob_that_nothing_names_is_held_against_its_own_name(layout):
    stray = layout.add(BytesBlob.of(b"{ no manifest", "text/plain"))
    (layout.folder / "blobs/sha256/somebody's notes").write_text("no blob")
    assert examine(layout).blobs == 9
    stray.path.write_bytes(b"{ other")
    assert [fault.digest for fault in validate(layout)] == [stray.descriptor.digest]


def test_a_missing_blob_is_named(layout):
    digest = own_layer(TWO).digest
    layout.path(digest).unlink()
    assert validate(layout) == [Fault(digest, "is missing")]


def test_a_damaged_blob_is_named(layout):
    said = own_layer(TWO)
    path = layout.path(said.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    faults = validate(layout)
    assert {fault.digest for fault in faults} == {said.digest}
    assert "is damaged: its bytes have the digest sha256:" in faults[0].message


def test_a_blob_of_another_size_is_named(layout):
    said = own_layer(TWO)
    with layout.path(said.digest).open("ab") as file:
        file.write(b"more")
    [fault] = validate(layout)
    assert fault == Fault(said.digest, f"is {said.size + 1} bytes, its descriptor says {said.size}")


def test_a_cut_blob_is_named(layout):
    said = own_layer(TWO)
    path = layout.path(said.digest)
    path.write_bytes(path.read_bytes()[:100])
    assert validate(layout) == [Fault(said.digest, f"is 100 bytes, its descriptor says {said.size}")]


def test_all_faults_are_found_in_one_run(layout):
    one, two = own_layer(TWO, 0).digest, own_layer(TWO, 1).digest
    layout.path(one).unlink()
    layout.path(two).write_bytes(b"x")
    layout.path(TWO.images[1].config.descriptor.digest).write_bytes(b"y")
    assert {fault.digest for fault in validate(layout)} == {one, two, TWO.images[1].config.descriptor.digest}


def test_a_damaged_manifest_or_index_is_named(layout):
    path = layout.path(TWO.images[0].digest)
    path.write_bytes(path.read_bytes().replace(b"linux", b"linus").replace(b"layer", b"lawyer", 1))
    assert TWO.images[0].digest in {fault.digest for fault in validate(layout)}
    layout.path(TWO.digest).unlink()
    assert validate(layout)[0] == Fault(TWO.digest, "is missing")
    assert TWO.images[0].digest in {fault.digest for fault in validate(layout)}, "it lies there, named or not"


def test_a_file_that_was_cut_short_names_what_is_missing(tmp_path):
    write_tar(TWO, tmp_path / "two.tar")
    data = (tmp_path / "two.tar").read_bytes()
    (tmp_path / "two.tar").write_bytes(data[: len(data) // 2])
    faults = validate(Tar(tmp_path / "two.tar"))
    *blobs, end = faults
    assert blobs and all(fault.digest.startswith("sha256:") for fault in blobs)
    assert "cut short" in end.message


def test_a_manifest_that_cannot_be_read_is_a_fault(tmp_path):
    for data in (b"{", b"[]", b'{"schemaVersion":1,"config":{},"layers":[]}', b"[" * 100_000):
        blob = BytesBlob.of(data, ONE.entry.descriptor.media_type)
        layout = write_layout(ONE, tmp_path)
        layout.add(blob)
        index = {"schemaVersion": 2, "manifests": [msgspec.to_builtins(blob.descriptor)]}
        (tmp_path / "index.json").write_text(json.dumps(index))
        [fault] = validate(layout)
        assert fault.digest == blob.descriptor.digest


@pytest.mark.parametrize("said", ["text/plain", "application/vnd.oci.image.index.v1+json"])
def test_a_wrong_media_type_is_a_fault(layout, said):
    index = json.loads((layout.folder / "index.json").read_text())
    index["manifests"][0] = {**msgspec.to_builtins(TWO.images[0].manifest.descriptor), "mediaType": said}
    (layout.folder / "index.json").write_text(json.dumps(index))
    assert validate(layout)[0].digest == TWO.images[0].digest


def test_a_layer_that_is_no_layer_is_a_fault():
    blob = BytesBlob.of(b"x", "text/plain")
    [fault] = validate(with_layer(blob, Digest.of(b"x")))
    assert fault == Fault(blob.descriptor.digest, "has media type 'text/plain', expected one of an image layer")


def test_a_diff_id_that_is_not_that_of_the_layer_is_a_fault():
    layer = gzip_layer(tar_of("a", b"a"))
    [fault] = validate(with_layer(layer, Digest.of(b"other")))
    assert fault.digest == layer.descriptor.digest
    assert f"the config's diff_id says {Digest.of(b'other')}" in fault.message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not gzip at all", "is not a gzip stream"),
        (gzip.compress(b"a" * 5000)[:-4], "is cut short"),
        (gzip.compress(b"a" * 5000)[:-8] + bytes(8), "is not a gzip stream"),
        (gzip.compress(b"a") + b"trailing", "is not a gzip stream"),
        (b"", "is cut short"),
    ],
    ids=["no gzip", "cut", "wrong crc", "trailing", "empty"],
)
def test_a_layer_whose_gzip_is_broken_is_a_fault(data, says):
    blob = BytesBlob.of(data, LAYER_GZIP)
    [fault] = validate(with_layer(blob, Digest.of(b"a" * 5000)))
    assert fault.digest == blob.descriptor.digest
    assert says in fault.message


@pytest.mark.parametrize("members", [1, 2, 700])
def test_a_layer_of_many_gzip_members_is_unpacked_as_one(members):
    raw = tar_of("a", bytes(range(256)) * 4000)
    assert validate(with_layer(gzip_layer(raw, members), Digest.of(raw))) == []


def test_a_layer_that_unpacks_to_much_more_is_read_in_little_memory():
    raw = bytes(64 << 20)
    assert validate(with_layer(gzip_layer(raw, 1), Digest.of(raw))) == []


def test_a_missing_platform_is_a_fault():
    index = with_config(architecture="")
    [fault] = validate(index)
    assert fault == Fault(
        index.images[0].config.descriptor.digest, "the platform is missing: the config names no architecture or no os"
    )


def test_a_platform_that_the_config_contradicts_is_a_fault():
    index = Index((dataclasses.replace(image("arm64"), platform=PlatformField("amd64", "linux")),))
    [fault] = validate(index)
    assert fault == Fault(index.images[0].digest, "the index says linux/amd64, the config linux/arm64")


def test_a_wrong_number_of_diff_ids_is_a_fault():
    index = with_config(rootfs={"type": "layers", "diff_ids": []})
    [fault] = validate(index)
    assert fault == Fault(index.images[0].config.descriptor.digest, "lists 0 diff_ids for 2 layers")


def test_a_config_that_is_none_is_a_fault():
    index = with_config(rootfs=3)
    [fault] = validate(index)
    assert "is not an image config" in fault.message


def zstd_layer(data: bytes) -> BytesBlob:
    return BytesBlob.of(data, "application/vnd.oci.image.layer.v1.tar+zstd")


def test_a_layer_that_this_python_cannot_unpack_is_counted_not_passed_over(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    assert examine(with_layer(zstd_layer(b"\x28\xb5\x2f\xfd"), Digest.of(b""))).unchecked_layers == 1


ZSTD = zstandard.ZstdCompressor()
RAW = tar_of("own", b"o" * 5000)
SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"  # a frame that says nothing (RFC 8878, 3.1.2)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ZSTD.compress(RAW), None),
        (ZSTD.compress(RAW[:100]) + SKIPPED + ZSTD.compress(RAW[100:]) + SKIPPED, None),
        (ZSTD.compress(RAW + b"x"), "unpacks to sha256:"),
        (ZSTD.compress(RAW)[:-1], "is cut short"),
        (b"PK" + ZSTD.compress(RAW), "is not a zstd stream"),
    ],
    ids=["one frame", "several", "another tar", "cut", "no zstd"],
)
def test_a_zstd_layer_is_held_against_the_configs_diff_id(data, says):
    report = examine(with_layer(zstd_layer(data), Digest.of(RAW)))
    assert report.unchecked_layers == 0
    assert [says in fault.message for fault in report.faults] == ([True] if says else [])


def test_a_digest_that_is_none_is_a_fault_and_opens_no_file(layout):
    index = {"schemaVersion": 2, "manifests": [{**msgspec.to_builtins(TWO.entry.descriptor), "digest": "../../x"}]}
    (layout.folder / "index.json").write_text(json.dumps(index))
    [fault] = validate(layout)
    assert "is not a digest" in fault.message


def test_a_registry_that_goes_away_is_not_called_a_fault():
    class Away:
        name = "away"

        def top(self) -> list[Descriptor]:
            return [TWO.entry.descriptor]

        def find(self, descriptor: Descriptor) -> None:
            raise Unreachable("registry 'away' did not answer")

    with pytest.raises(Unreachable):
        validate(Away())
    assert isinstance(ONE.images[0], Image)
