"""Models as folders: which names are versions, which is the latest, and what counts as a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.model_folders import files_in, is_version, mark_of, versions_of
from edgepack.errors import BadInput


@given(st.sets(st.integers(0, 10**18 - 1), min_size=1, max_size=20))
def test_the_latest_version_is_the_highest_number_whatever_the_names_sort_like(numbers: set[int]) -> None:
    files = {f"model/{number}/m.onnx": Path("m.onnx") for number in numbers}
    found = versions_of("m", "model", files, "onnx")
    assert found.latest == str(max(numbers))
    assert found.places == {str(number): f"model/{number}" for number in numbers}


@pytest.mark.parametrize("name", ["", "01", "-1", "1.0", "v1", "²", "٣", "1 ", "9" * 19])
def test_what_is_no_integer_as_one_writes_it_is_no_version(name: str) -> None:
    assert not is_version(name)


def test_a_mark_changes_with_every_file_and_with_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "1/m.onnx").write_bytes(b"one")
    marks = [mark_of(folder)]
    (folder / ".part").write_bytes(b"half")
    (folder / "2").mkdir()
    assert mark_of(folder) == marks[0], "neither hidden files nor empty folders are a model"
    (folder / "1/m.onnx").write_bytes(b"two")
    marks.append(mark_of(folder))
    (folder / "1/m.onnx").rename(folder / "2/m.onnx")
    marks.append(mark_of(folder))
    (folder / "2/more").write_bytes(b"")
    marks += [mark_of(folder), mark_of(folder / "2/more")]
    os.utime(folder / "2/more", (1, 1))
    marks.append(mark_of(folder / "2/more"))
    assert len(set(marks)) == len(marks)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/m.onnx").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match=r"'m\.onnx' in 'model' is a link or no plain file"):
        files_in(tmp_path / "model")
