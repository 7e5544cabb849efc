from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildx.entries import BytesSource, Entry, WheelMember, complete, file, folder, link
from buildx.splice import SPLICE_FROM, Stored, stored_member, write_layer
from edgepack.errors import BuildFailed

NAMES = st.text("abcdefgh/._-é", min_size=1, max_size=120).filter(
    lambda text: all(part not in ("", ".", "..") for part in text.split("/"))
)
SIZES = st.one_of(st.integers(0, 2000), st.integers(65530, 65540), st.integers(SPLICE_FROM, 3 * SPLICE_FROM))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def zipped(path, contents: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def members(path) -> list[Entry]:
    with zipfile.ZipFile(path) as archive:
        return [Entry(info.filename, "file", WheelMember.of(path, info)) for info in archive.infolist()]


def contents_of(layer) -> dict[str, bytes]:
    with tarfile.open(layer.path, "r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(SIZES, st.booleans()), max_size=6), st.booleans())
def test_any_zip_becomes_a_tar_of_equal_content(tmp_path_factory, shapes, deflate):
    names = [name for name in shapes if not any(other.startswith(name + "/") for other in shapes)]
    contents = {name: noise(shapes[name][0]) if shapes[name][1] else bytes(shapes[name][0]) for name in names}
    folder_ = tmp_path_factory.mktemp("zip")
    source = zipped(folder_ / "a.whl", contents, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
    layer = write_layer(members(source), folder_ / "layer", Stored())
    assert contents_of(layer) == contents
    assert layer.digest == "sha256:" + hashlib.sha256(layer.path.read_bytes()).hexdigest()
    assert layer.diff_id == "sha256:" + hashlib.sha256(gzip.decompress(layer.path.read_bytes())).hexdigest()


def test_a_large_member_is_copied_as_it_is_packed_in_the_wheel(tmp_path):
    data = noise(200_000)
    packed = zlib.compress(data, 9)[2:-4]
    layer = write_layer(members(zipped(tmp_path / "a.whl", {"pkg/big.so": data})), tmp_path / "layer", Stored())
    assert packed[:30_000] in layer.path.read_bytes()
    assert contents_of(layer) == {"pkg/big.so": data}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 200_000])
def test_a_stored_member_reads_back_with_gzip(size):
    assert gzip.decompress(stored_member(noise(size))) == noise(size)


def test_the_layer_of_a_fixed_content_has_a_golden_digest(tmp_path):
    """Holds the recipe: a change of these digests must be meant, and raises `RECIPE` in buildx/layer_cache.py."""
    entries = [
        file("opt/a.txt", b"hello\n"),
        file("usr/bin/run", b"#!\n", 0o755),
        folder("persist", owner=65532),
        link("lib", "usr/lib"),
    ]
    layer = write_layer(entries, tmp_path / "layer", Stored())
    assert layer.diff_id == "sha256:2eaa86b4a2004a519a187524fa72f43bf182eabf1bf8e827d3d9e8c8d1f9368c"
    assert layer.digest == "sha256:fc56c5c05956f62f028c56fbfb9bb1bd15eb09131cf3e825bdac3b7e313a4358"


def test_modes_owners_and_times_are_fixed_and_parents_are_there(tmp_path):
    layer = write_layer([file("opt/x/a", b"1", 0o755), folder("persist", owner=65532)], tmp_path / "layer", Stored())
    with tarfile.open(layer.path, "r:gz") as tar:
        seen = {member.name: (member.mode, member.uid, member.gid, member.mtime) for member in tar}
    assert seen == {
        "opt": (0o755, 0, 0, 1),
        "opt/x": (0o755, 0, 0, 1),
        "opt/x/a": (0o755, 0, 0, 1),
        "persist": (0o755, 65532, 65532, 1),
    }


def test_a_path_that_two_packages_bring_fails_loudly():
    with pytest.raises(BuildFailed, match=r"'/a/b' is in one layer twice"):
        complete([file("a/b", b"1"), file("a/b", b"1")])


@pytest.mark.parametrize("size", [100, 200_000])
def test_a_wheel_with_a_flipped_byte_is_refused(tmp_path, size):
    wheel = zipped(tmp_path / "a.whl", {"pkg/f": noise(size)})
    data = bytearray(wheel.read_bytes())
    data[80] ^= 0xFF
    wheel.write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(wheel.read_bytes())) as archive:
        entries = [Entry("pkg/f", "file", WheelMember.of(wheel, archive.infolist()[0]))]
    with pytest.raises(BuildFailed, match=r"a\.whl|deflate stream"):
        write_layer(entries, tmp_path / "layer", Stored())


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path):
    from buildx.entries import PathSource

    grown = tmp_path / "model"
    grown.write_bytes(b"12345")
    with pytest.raises(BuildFailed, match="changed while it was read"):
        list(PathSource(grown, 4).chunks())
    assert BytesSource(b"ab").size == 2
