"""Packing bundles, reading them back, and refusing what contradicts itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from arch.target import Target
from bundle import media
from bundle.bundle import Bundle, attach_parity, bundles, check_path, check_paths, pack, read_small, version_of
from edgepack.errors import BadInput, NotTrusted
from oci.blob import BytesBlob
from oci.image import Image
from oci.layout import write_layout
from oci.tar import read_tar, write_tar
from tests import make
from tests.golden import remake


@pytest.mark.parametrize("name", ["pipeline.json", "manifest.json", "index.json"])
def test_the_documents_of_a_bundle_are_those_that_are_out_in_the_field(name: str, tmp_path: Path) -> None:
    assert remake.documents(tmp_path)[name] == (remake.FOLDER / name).read_bytes()


def test_the_digest_depends_on_content_only(tmp_path: Path) -> None:
    one = make.bundle_index(tmp_path / "a")
    other = make.bundle_index(tmp_path / "b" / "c", targets=[Target("x86"), Target("arm"), Target("x86")])
    assert one.digest == other.digest
    assert one.digest != make.bundle_index(tmp_path / "a", seed=1).digest
    assert one.digest != make.bundle_index(tmp_path / "a", tolerance=1e-3).digest
    assert one.digest != make.bundle_index(tmp_path / "a", targets=[Target("arm")]).digest


def test_there_is_one_manifest_a_target_and_they_share_their_blobs(tmp_path: Path) -> None:
    arm, x86 = bundles(make.bundle_index(tmp_path))
    assert (str(arm.target), str(x86.target)) == ("arm/none", "x86/none")
    assert arm.digest != x86.digest and arm.version == x86.version
    assert list(arm.blobs) == ["models/linear/model.onnx", "golden.json"]
    assert {each.descriptor.digest for each in arm.image.blobs()} == {b.descriptor.digest for b in x86.image.blobs()}


def test_a_parity_report_is_a_referrer_and_leaves_the_bundle_as_it_is(tmp_path: Path) -> None:
    index = make.bundle_index(tmp_path)
    image, before = index.images[0], index.digest
    referrer = attach_parity(image, b'{"rows":4}')
    assert index.digest == before
    assert referrer.subject is not None and referrer.subject.digest == image.digest
    assert referrer.subject.size == image.manifest.descriptor.size
    assert referrer.artifact_type == media.PARITY
    assert attach_parity(image, b'{"rows":4}').digest == referrer.digest != attach_parity(image, b"{}").digest


def test_a_bundle_comes_back_from_a_layout_and_from_a_tar(tmp_path: Path) -> None:
    index = make.bundle_index(tmp_path)
    layout = write_layout(index, tmp_path / "layout")
    write_tar(index, tmp_path / "b.tar")
    for again in (layout.index(), read_tar(tmp_path / "b.tar")):
        assert again.digest == index.digest
        assert [b.digest for b in bundles(again)] == [image.digest for image in index.images]
        assert [b.spec for b in bundles(again)] == [b.spec for b in bundles(index)]


def test_the_version_is_a_uuid_of_the_index_digest(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    assert version_of(digest) == version_of(digest) != version_of("sha256:" + "1" * 64)
    assert version_of(digest)[14] == "5"
    with pytest.raises(NotTrusted):
        version_of("latest")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../x",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\nb",
        "a\x00b",
        "e\u0301",
        "x" * 300,
        "a/" * 600,
    ],
)
def test_a_path_that_is_not_plain_and_inside_is_refused(path: str) -> None:
    with pytest.raises(BadInput, match="plain relative path"):
        check_path(path)


@pytest.mark.parametrize(
    "paths",
    [["a/B", "a/b"], ["golden.json"], ["pipeline.json"], ["manifest.json"], ["a", "a/b"], ["A", "a/b"], ["a", "a"]],
)
def test_paths_that_meet_on_some_file_system_are_refused(paths: list[str]) -> None:
    with pytest.raises(BadInput):
        check_paths(paths)


def test_packing_needs_the_models_and_a_target(tmp_path: Path) -> None:
    model = make.save(make.linear(), tmp_path / "model.onnx")
    with pytest.raises(BadInput, match=r"models/linear/model\.onnx"):
        pack(make.spec(), {"other.onnx": model}, b"[]", [Target("x86")])
    with pytest.raises(BadInput, match="target"):
        pack(make.spec(), {"models/linear/model.onnx": model}, b"[]", [])


def _spoiled(image: Image, **changes: object) -> Image:
    """The same manifest with another spec."""
    spec = msgspec.json.decode(read_small(image.config)) | changes
    return replace(image, config=BytesBlob.of(msgspec.json.encode(spec), media.PIPELINE))


def test_a_manifest_that_contradicts_itself_is_not_trusted(tmp_path: Path) -> None:
    image = make.bundle_index(tmp_path).images[0]
    step = msgspec.json.decode(read_small(image.config))["steps"][0]
    golden = image.layers[-1]
    wrong = {
        "artifact type": replace(image, artifact_type=None),
        "spec does not read": _spoiled(image, unknown=1),
        "annotation names": replace(image, annotations={**image.annotations, media.NAME: "other"}),
        "target": replace(image, annotations={**image.annotations, media.TARGET: "vax"}),
        "no steps": _spoiled(image, steps=[]),
        "without fields": _spoiled(image, steps=[step | {"input": {}}]),
        "format 2, this version reads 1": _spoiled(image, format=2),
        "DNS label": _spoiled(image, name="../../etc"),
        r"name '\.\./x' is not": _spoiled(image, steps=[step | {"name": "../x"}]),
        "tolerance": _spoiled(image, tolerance=-1),
        "number of bytes": _spoiled(image, log={"max_bytes": "9" * 9999}),
        "field 'y'": _spoiled(image, steps=[step | {"output": {"y": "floot"}}]),
        "validation 'v'": _spoiled(image, validations={"v": "__import__('os')"}),
        "not among the files": _spoiled(image, steps=[step | {"model": "models/other.onnx"}]),
        "with sha256": _spoiled(image, steps=[step | {"sha256": "0" * 64}]),
        "golden.json": replace(image, layers=image.layers[:-1]),
        "plain relative path": replace(
            image, layers=(golden, BytesBlob.of(b"x", media.MODEL, {media.FILEPATH: "../../etc/cron.d/x"}))
        ),
        "differ at most in case": replace(image, layers=(*image.layers, image.layers[0])),
    }
    for named, spoiled in wrong.items():
        with pytest.raises(NotTrusted, match=named):
            Bundle.from_image(spoiled, image.digest)


def test_a_spec_that_is_not_what_the_manifest_says_is_not_trusted(tmp_path: Path) -> None:
    image = make.bundle_index(tmp_path).images[0]
    said = image.config.descriptor
    for data in (b"{}", read_small(image.config) + b" ", b"x" * (2 << 20)):
        with pytest.raises(NotTrusted, match="blob sha256"):
            Bundle.from_image(replace(image, config=BytesBlob(data, said)), image.digest)
