"""Uploaded zips and folders: what is taken, what is refused, and that nothing is left behind of what is refused."""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.errors import BadInput
from packager import archives
from packager.archives import Tree, names_in, open_tree, read_one


def zipped(path: Path, members: dict[str, bytes | str], **kinds: int) -> Path:
    """A zip with these members; `kinds` maps a member's name to the file type in its attributes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (2024, 5, 1, 1, 1, 2))
            info.compress_type = zipfile.ZIP_DEFLATED
            if name in kinds:
                info.external_attr = (kinds[name] | 0o644) << 16
            archive.writestr(info, content)
    return path


def content(tree: Tree) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in tree.files.items()}


def left_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


FILES: dict[str, bytes | str] = {"step.py": "x = 1\n", "data/list.csv": "1,2\n", "requirements.txt": ""}


@pytest.mark.parametrize("top", ["", "preprocess_step/"])
def test_a_zip_gives_the_same_tree_with_and_without_one_top_folder(tmp_path: Path, top: str) -> None:
    path = zipped(tmp_path / "step.zip", {f"{top}{name}": text for name, text in FILES.items()})
    tree = open_tree(path, tmp_path / "cache")
    assert content(tree) == {name: str(text).encode() for name, text in FILES.items()}
    assert names_in(path) == sorted(FILES) == list(tree.files)


def test_zip_and_folder_of_the_same_files_have_the_same_digest_whenever_they_were_zipped(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(str(text))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/step.cpython-311.pyc").write_bytes(b"left behind")
    path = zipped(tmp_path / "step.zip", dict(reversed(FILES.items())))
    assert open_tree(path, tmp_path / "cache").digest == open_tree(folder, tmp_path / "cache").digest


def test_a_zip_is_unpacked_once_for_each_content(tmp_path: Path) -> None:
    path = zipped(tmp_path / "step.zip", FILES)
    first = open_tree(path, tmp_path / "cache")
    before = first.files["step.py"].stat().st_mtime_ns
    assert open_tree(path, tmp_path / "cache").files == first.files
    assert first.files["step.py"].stat().st_mtime_ns == before
    assert not first.files["step.py"].stat().st_mode & 0o222


def test_what_zip_programs_leave_is_passed_over(tmp_path: Path) -> None:
    junk = {"__MACOSX/._step.py": b"\0", "step/.DS_Store": b"\0", "step/__pycache__/a.pyc": b"\0"}
    path = zipped(tmp_path / "step.zip", {**junk, "step/step.py": "x = 1\n"})
    assert list(open_tree(path, tmp_path / "cache").files) == ["step.py"]


@pytest.mark.parametrize(
    "name",
    ["../step.py", "a/../../step.py", "/etc/step.py", "a\\..\\step.py", "C:step.py", "./step.py", "a//b.py", "a\nb.py",
     "x" * 201, "e\u0301.py"],
)  # fmt: skip
def test_a_path_that_leads_out_or_is_not_plain_is_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "step.zip", {"ok.py": "", name: "x = 1\n"})
    with pytest.raises(BadInput, match="plain relative paths"):
        open_tree(path, tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "step.zip"]


@pytest.mark.parametrize("kind, word", [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "plain file"), (stat.S_IFCHR, "plain")])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int, word: str) -> None:
    path = zipped(tmp_path / "step.zip", {"step.py": "", "passwd": "/etc/passwd"}, passwd=kind)
    with pytest.raises(BadInput, match=f"'passwd'.*{word}"):
        open_tree(path, tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "names, word",
    [(["Step.py", "step.py"], "case"), (["a/b.py", "A/B.py"], "case"), (["a.py", "a.py"], "case"),
     (["a", "a/b.py"], "file and a folder")],
)  # fmt: skip
def test_names_that_another_file_system_takes_for_one_are_refused(tmp_path: Path, names: list[str], word: str) -> None:
    path = tmp_path / "step.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile itself finds a name that is there twice odd
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")
        archive.writestr("other.py", "")
    with pytest.raises(BadInput, match=word):
        open_tree(path, tmp_path / "cache")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_RATIO", 1 << 20)
    path = zipped(tmp_path / "bomb.zip", {"zeros.bin": bytes(8 << 20)})
    assert path.stat().st_size < 16 << 10
    with pytest.raises(BadInput, match="bomb"):
        open_tree(path, tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Fifield's kind of bomb: many directory entries that all point to one member."""
    path = zipped(tmp_path / "bomb.zip", {"a.bin": bytes(1 << 16)})
    data = path.read_bytes()
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[at:end]
    both = entry + entry.replace(b"a.bin", b"b.bin")
    tail = bytearray(data[end:])
    tail[8:12] = (2).to_bytes(2, "little") * 2
    tail[12:16] = len(both).to_bytes(4, "little")
    path.write_bytes(data[:at] + both + bytes(tail))
    with pytest.raises(BadInput, match="shares bytes"):
        open_tree(path, tmp_path / "cache")


def test_more_members_than_a_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(BadInput, match="4 members"):
        open_tree(zipped(tmp_path / "many.zip", {f"{i}.py": "" for i in range(4)}), tmp_path / "cache")


def encrypted(path: Path) -> None:
    data = bytearray(zipped(path, {"step.py": "x"}).read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    path.write_bytes(data)


def other_compression(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("step.py", "x" * 100)


def damaged(path: Path) -> None:
    data = bytearray(zipped(path, {"step.py": os.urandom(1000)}).read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(zipped(path, {"step.py": "x" * 1000}).read_bytes()[:60])


@pytest.mark.parametrize(
    "make, word",
    [(encrypted, "encrypted"), (other_compression, "compression"), (damaged, "does not read"), (cut, "does not read"),
     (lambda path: zipped(path, {}), "no files"), (lambda path: zipped(path, {"__MACOSX/._a": ""}), "no files")],
)  # fmt: skip
def test_a_zip_that_cannot_be_unpacked_says_why(tmp_path: Path, make: Callable[[Path], object], word: str) -> None:
    make(tmp_path / "step.zip")
    with pytest.raises(BadInput, match=word) as error:
        open_tree(tmp_path / "step.zip", tmp_path / "cache")
    assert len(str(error.value).splitlines()) == 1
    assert left_in(tmp_path / "cache") == []


def test_a_folder_with_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step/step.py").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="link"):
        open_tree(tmp_path / "step", tmp_path / "cache")


@settings(max_examples=60, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_zip_is_read_or_refused_and_never_more(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/step.py", "def process_data(): pass\n" * 9)
        archive.writestr("top/data.bin", bytes(range(256)))
    forged = bytearray(data.getvalue())
    for at, value in damage:
        forged[at % len(forged)] = value
    (folder / "step.zip").write_bytes(forged)
    try:
        tree = open_tree(folder / "step.zip", folder / "cache")
    except BadInput:
        assert left_in(folder / "cache") == []
    else:
        assert all(path.is_relative_to(folder / "cache") for path in tree.files.values())


@pytest.mark.parametrize("top", ["", "step/"])
def test_one_file_is_read_of_a_zip_or_folder_and_nothing_is_unpacked(tmp_path: Path, top: str) -> None:
    path = zipped(tmp_path / "step.zip", {f"{top}{name}": text for name, text in FILES.items()})
    for name, text in FILES.items():
        file = tmp_path / "step" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))
    for place in (path, tmp_path / "step"):
        assert read_one(place, "data/list.csv", 4) == b"1,2\n"
        assert read_one(place, "list.csv", 4) is None, "by its whole path alone"
        with pytest.raises(BadInput, match=r"'data/list.csv' in 'step(\.zip)?' is larger than 3 bytes"):
            read_one(place, "data/list.csv", 3)


def test_one_file_of_a_damaged_zip_is_refused_by_name(tmp_path: Path) -> None:
    """Its directory reads, and what is packed does not."""
    path = zipped(tmp_path / "step.zip", {"step.py": "x = 1\n" * 100})
    with zipfile.ZipFile(path) as archive:
        at = archive.infolist()[0].header_offset + 30 + len("step.py")
    data = bytearray(path.read_bytes())
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"zip 'step\.zip' does not read: .*; copy it again"):
        read_one(path, "step.py", 1 << 20)


def test_one_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    for name, place in (("passwd", "/etc/passwd"), ("gone", "absent"), ("out", "/etc")):
        (tmp_path / "step" / name).symlink_to(place)
    for name in ("passwd", "gone", "out/passwd"):
        with pytest.raises(BadInput, match=f"'{name}' in folder 'step' is a link or no plain file"):
            read_one(tmp_path / "step", name, 1 << 20)
