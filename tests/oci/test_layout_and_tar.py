"""The two forms that lie on a disk: equal bytes for equal content, taken by other tools, refused when hostile."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.errors import BadInput, BuildFailed, EdgepackError, NotTrusted
from oci import Blob, BytesBlob, Descriptor, Digest, Image, Index
from oci.image import IMAGE_CONFIG
from oci.layout import Layout, write_layout
from oci.tar import Tar, read_tar, write_tar
from oci.validate import validate
from tests.oci.conftest import need
from tests.oci.make_images import ONE, TWO, artifact, bundle, image

INDEXES = {"one": ONE, "two": TWO, "bundle": bundle()}


@pytest.fixture(params=list(INDEXES))
def index(request: pytest.FixtureRequest) -> Index:
    return INDEXES[request.param]


def data_of(blob: Blob) -> bytes:
    with blob.open() as file:
        return file.read()


def test_what_was_written_reads_back_as_it_was(index, tmp_path):
    write_layout(index, tmp_path / "layout", "thing:v1")
    write_tar(index, tmp_path / "thing.tar", "thing:v1")
    for read in (
        Layout(tmp_path / "layout").index(),
        Layout(tmp_path / "layout").index("v1"),
        read_tar(tmp_path / "thing.tar"),
    ):
        assert read.digest == index.digest
        assert read.entry.data == index.entry.data
        assert [data_of(blob) for blob in read.blobs()] == [data_of(blob) for blob in index.blobs()]
        assert validate(read) == []


def test_a_tar_read_and_written_again_is_the_same_file(index, tmp_path):
    write_tar(index, tmp_path / "a.tar", "thing:v1")
    write_tar(read_tar(tmp_path / "a.tar"), tmp_path / "b.tar", "thing:v1")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


_WRITE = """
import os, sys
os.umask(int(sys.argv[2], 8))
from pathlib import Path
from oci.layout import write_layout
from oci.tar import write_tar
from tests.oci.make_images import TWO
write_tar(TWO, Path(sys.argv[1], "two.tar"), "two:v1")
write_layout(TWO, Path(sys.argv[1], "two"), "two:v1")
"""


def test_two_writes_in_other_folders_masks_zones_and_hash_seeds_give_the_same_bytes(tmp_path):
    found = []
    for name, mask, zone, seed in (("here", "022", "UTC", "1"), ("else/where", "077", "Asia/Tokyo", "2")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", _WRITE, str(folder), mask], check=True, env=environment)
        layout = sorted(path for path in (folder / "two").rglob("*") if path.is_file())
        found.append(
            [(folder / "two.tar").read_bytes()]
            + [(str(path.relative_to(folder)), path.stat().st_mode, path.read_bytes()) for path in layout]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_skopeo_takes_an_arm_image_on_any_machine(tmp_path, form):
    skopeo = need("skopeo")
    write_layout(ONE, tmp_path / "oci", "one:v1")
    write_tar(ONE, tmp_path / "archive", "one:v1")
    place = f"{form}:{tmp_path / ('oci' if form == 'oci' else 'archive')}"
    said = json.loads(subprocess.run([skopeo, "inspect", place], capture_output=True, check=True).stdout)
    assert said["Architecture"] == "arm64"
    if form != "docker-archive":
        assert said["Digest"] == ONE.entry.descriptor.digest
    tag = ":one:v1" if form == "docker-archive" else ":v1"
    subprocess.run([skopeo, "copy", "-q", place + tag, f"dir:{tmp_path / 'copy'}"], check=True)


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_skopeo_copies_an_index_for_two_platforms_and_we_read_the_copy(tmp_path, form):
    skopeo = need("skopeo")
    write_layout(TWO, tmp_path / "oci", "two:v1")
    write_tar(TWO, tmp_path / "archive", "two:v1")
    place = f"{form}:{tmp_path / ('oci' if form == 'oci' else 'archive')}:v1"
    subprocess.run([skopeo, "copy", "-q", "--all", place, f"oci:{tmp_path / 'copy'}:v2"], check=True)
    assert Layout(tmp_path / "copy").index("v2").digest == TWO.digest
    subprocess.run([skopeo, "copy", "-q", "--all", place, f"oci-archive:{tmp_path / 'copy.tar'}:v2"], check=True)
    assert read_tar(tmp_path / "copy.tar").digest == TWO.digest
    assert validate(Tar(tmp_path / "copy.tar")) == []


def test_a_tar_of_a_layout_folder_made_by_gnu_tar_is_read(tmp_path):
    write_layout(TWO, tmp_path / "layout")
    for form in ("gnu", "oldgnu", "pax", "ustar", "v7"):
        path = tmp_path / f"{form}.tar"
        subprocess.run(["tar", "-C", str(tmp_path / "layout"), f"--format={form}", "-cf", str(path), "."], check=True)
        assert read_tar(path).digest == TWO.digest
        assert validate(Tar(path)) == []


def test_what_is_no_blob_is_listed_for_sha256sum(tmp_path):
    write_tar(ONE, tmp_path / "one.tar", "one:v1", files={"attestations/a.json": b"{}"})
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", str(tmp_path / "one.tar")], check=True)
    check = ["sha256sum", "--strict", "--check", "documents.sha256"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        *("attestations/a.json", "index.json", "manifest.json", "oci-layout")
    ]


def test_docker_is_told_one_image_and_never_a_bundle(tmp_path):
    for name, index in INDEXES.items():
        write_tar(index, tmp_path / name, "registry.example:5000/a/thing")
        with tarfile.open(tmp_path / name) as tar:
            assert ("manifest.json" in tar.getnames()) == (name == "one")
            if name == "one":
                said = json.load(tar.extractfile("manifest.json"))[0]
                assert said["RepoTags"] == ["registry.example:5000/a/thing:latest"]
                assert all(layer in tar.getnames() for layer in [said["Config"], *said["Layers"]])


def test_the_name_for_containerd_is_the_full_one(tmp_path):
    for given_name, full in (
        ("thing", "docker.io/library/thing:latest"),
        ("a/thing:1", "docker.io/a/thing:1"),
        ("localhost:5000/thing:1", "localhost:5000/thing:1"),
    ):
        top = write_layout(ONE, tmp_path / "layout", given_name).top()[0]
        assert top.annotations["io.containerd.image.name"] == full


def wrong_image() -> Index:
    """An image whose layer does not have the bytes that its descriptor promises."""
    layer = ONE.images[0].layers[0]
    bad = BytesBlob(b"x" * layer.descriptor.size, layer.descriptor)
    return Index((Image(ONE.images[0].config, (bad,)),))


def test_a_blob_with_wrong_bytes_is_never_written(tmp_path):
    write_layout(TWO, tmp_path / "layout")
    write_tar(TWO, tmp_path / "a.tar")
    before = (tmp_path / "layout/index.json").read_bytes(), (tmp_path / "a.tar").read_bytes()
    index = wrong_image()
    layer = index.images[0].layers[0].descriptor
    (tmp_path / "layout/blobs/sha256" / layer.digest[7:]).unlink()
    with pytest.raises(NotTrusted, match=layer.digest):
        write_layout(index, tmp_path / "layout")
    with pytest.raises(NotTrusted, match=layer.digest):
        write_tar(index, tmp_path / "a.tar")
    assert not Layout(tmp_path / "layout").has(layer.digest)
    assert before == ((tmp_path / "layout/index.json").read_bytes(), (tmp_path / "a.tar").read_bytes())
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_a_damaged_blob_in_a_layout_is_written_anew(tmp_path):
    layout = write_layout(ONE, tmp_path)
    path = layout.path(ONE.images[0].layers[1].descriptor.digest)
    path.write_bytes(bytes(path.stat().st_size))
    write_layout(ONE, tmp_path)
    assert validate(layout) == []


def test_a_blob_of_a_layout_comes_with_size_and_type(tmp_path):
    layout = write_layout(ONE, tmp_path)
    said = ONE.images[0].layers[0].descriptor
    assert layout.blob(said.digest, said.media_type).descriptor == Descriptor(said.media_type, said.digest, said.size)
    assert data_of(layout.image(ONE.images[0].digest).layers[0]) == data_of(ONE.images[0].layers[0])
    with pytest.raises(NotTrusted, match="lacks the blob"):
        layout.blob(Digest.of(b"other"))
    for hostile in ("sha256:../../etc/passwd", "../x", ""):
        with pytest.raises(NotTrusted, match="is not a digest"):
            layout.path(hostile)


def test_a_changed_copy_of_a_read_image_has_another_digest(tmp_path):
    """The manifest that was read is kept only for as long as it says what the fields say."""
    import dataclasses

    read = write_layout(ONE, tmp_path).index().images[0]
    changed = dataclasses.replace(read, annotations={"a": "b"})
    assert changed.digest != read.digest
    assert b'"a":"b"' in changed.manifest.data


def test_places_that_hold_no_layout_say_so(tmp_path):
    with pytest.raises(BadInput, match="is not an OCI layout"):
        Layout(tmp_path).index()
    with pytest.raises(BadInput, match="no such file"):
        read_tar(tmp_path / "none.tar")
    write_layout(ONE, tmp_path / "layout", "a:v1")
    with pytest.raises(BadInput, match="holds no image called 'v2'"):
        Layout(tmp_path / "layout").index("v2")
    (tmp_path / "layout/index.json").write_text('{"schemaVersion":2,"manifests":3}')
    with pytest.raises(NotTrusted, match=r"index\.json' is not an image index"):
        Layout(tmp_path / "layout").index()


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x1f\x8b" + b"x" * 600, bytes(2048)], ids=["empty", "short", "gzip", "zeros"]
)
def test_a_file_that_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(BadInput, match="is not an uncompressed tar"):
        read_tar(tmp_path / "a.tar")


def tar_with(path: Path, /, *members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT, **said: str) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            member.pax_headers = said
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, "/etc/passwd", size
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        [member("blobs", tarfile.SYMTYPE)],
        [member("index.json", tarfile.LNKTYPE)],
        [member("index.json", tarfile.CHRTYPE)],
        [member("../index.json")],
        [member("/index.json")],
        [member("index.json"), member("./index.json")],
        [member("a/../../b")],
        [member("../" + "x" * 200)],
    ],
    ids=["symlink", "hard link", "device", "above", "absolute", "twice", "up and up", "long name"],
)
def test_a_hostile_tar_is_refused(tmp_path, hostile):
    with pytest.raises(BadInput, match="refused"):
        read_tar(tar_with(tmp_path / "a.tar", *hostile))


def test_extended_headers_that_lie_are_refused(tmp_path):
    for said in (
        {"size": "-1"},
        {"size": "9" * 30},
        {"GNU.sparse.major": "1"},
        {"path": "../../x"},
        {"c": "x" * 70_000},
    ):
        path = tar_with(tmp_path / "a.tar", member("index.json"), form=tarfile.PAX_FORMAT, **said)
        with pytest.raises(BadInput):
            read_tar(path)


SAID = artifact(b"what is said of it", subject=ONE.images[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """A tar with all that a build puts into one: documents, blobs, referrers."""
    path = tmp_path_factory.mktemp("whole") / "one.tar"
    write_tar(ONE, path, "one:v1", referrers=[SAID], files={"attestations/a.json": b"{}"})
    assert validate(Tar(path)) == []
    return path.read_bytes()


def is_noticed(path: Path, data: bytes | bytearray) -> bool:
    path.write_bytes(data)
    try:
        return bool(validate(Tar(path)))
    except EdgepackError:
        return True


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(at=st.integers(0, 1 << 20), flip=st.integers(1, 255))
def test_no_byte_of_a_tar_changes_unnoticed(tmp_path, whole, at, flip):
    data = bytearray(whole)
    data[at % len(data)] ^= flip
    assert is_noticed(tmp_path / "a.tar", data)


def test_a_tar_that_was_cut_anywhere_is_noticed(tmp_path, whole):
    ends = [*range(0, len(whole.rstrip(b"\0")), 97), len(whole.rstrip(b"\0")) + 512]
    assert [end for end in ends if not is_noticed(tmp_path / "a.tar", whole[:end])] == []


@pytest.mark.parametrize(
    ("name", "part"),
    [("index.json", b"one:v1"), ("manifest.json", b"one:v1"), ("oci-layout", b"1.0.0"), ("attestations/a.json", b"{")],
)
def test_a_document_that_changed_is_named(tmp_path, whole, name, part):
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        at = whole.index(part, tar.getmember(name).offset_data)
    (tmp_path / "a.tar").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert name in [fault.digest for fault in validate(Tar(tmp_path / "a.tar"))]


def test_what_is_said_of_an_image_is_proven_with_it(tmp_path, whole):
    for blob in (*SAID.layers, SAID.manifest):
        at = whole.index(data_of(blob))
        (tmp_path / "a.tar").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert blob.descriptor.digest in [fault.digest for fault in validate(Tar(tmp_path / "a.tar"))]


def test_a_disk_that_does_not_take_it_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BuildFailed, match="could not be written"):
        write_tar(ONE, tmp_path / "file" / "a.tar")
    with pytest.raises(BuildFailed, match="could not be written"):
        write_layout(ONE, tmp_path / "file" / "layout")


def test_a_blob_of_more_than_eight_gibibytes_has_a_header_that_tells_its_size():
    from oci.tar import _header

    assert (
        tarfile.TarInfo.frombuf(_header("blobs/sha256/a", 9 << 30, tarfile.REGTYPE), "utf-8", "strict").size == 9 << 30
    )


def test_an_empty_image_travels(tmp_path):
    config = BytesBlob.of(
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', IMAGE_CONFIG
    )
    index = Index((Image(config, ()),))
    write_tar(index, tmp_path / "a.tar")
    assert validate(read_tar(tmp_path / "a.tar")) == []
    assert image("arm64").digest == ONE.images[0].digest
