"""What was made of a model is kept, and found again, also where nothing can be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgepack.errors import BadInput
from packager.kept import FOLDER, OUTCOME, kept, list_conversions, prune_conversions


def made(work: Path) -> Path:
    (work / "stage").mkdir()
    (work / "stage" / OUTCOME).write_text("{}")
    return work / "stage"


def never(work: Path) -> Path:
    pytest.fail("it is there already")


def test_what_was_made_once_is_found(tmp_path: Path) -> None:
    folder = kept(tmp_path, "key", made, "a model")
    os.utime(folder / OUTCOME, (1.0, 1.0))
    assert kept(tmp_path, "key", never, "a model") == folder
    assert (folder / OUTCOME).stat().st_mtime > 1.0, "pruning goes by that"
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["key"]


def test_what_does_not_last_is_for_one_run_alone_and_is_pruned(tmp_path: Path) -> None:
    first = kept(tmp_path, "key", made, "a model", lambda folder: not (folder / OUTCOME).is_file())
    second = kept(tmp_path, "key", made, "a model")
    assert first != second and (first / OUTCOME).is_file() and second.name == "key"
    assert kept(tmp_path, "key", never, "a model") == second
    assert prune_conversions(tmp_path, 0.0, (second / OUTCOME).stat().st_mtime + 1) == 4 and not first.exists()


def test_what_another_build_has_made_meanwhile_is_taken(tmp_path: Path) -> None:
    def slowly(work: Path) -> Path:
        kept(tmp_path, "key", made, "a model")
        return made(work)

    assert (kept(tmp_path, "key", slowly, "a model") / OUTCOME).read_text() == "{}"


def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept(tmp_path, "key", made, "a model")

    def refuse(*_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert kept(tmp_path, "key", never, "a model") == folder


def test_what_cannot_be_kept_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("packager.kept.publish", full)
    with pytest.raises(BadInput, match=r"^the conversion of 'm' cannot be kept in '.*': is it writable\?$"):
        kept(tmp_path, "key", made, "the conversion of 'm'")


def test_what_no_build_used_is_pruned(tmp_path: Path) -> None:
    old, new = (kept(tmp_path, name, made, "a model") for name in ("old", "new"))
    os.utime(old / OUTCOME, (0.0, 0.0))
    used = (new / OUTCOME).stat().st_mtime
    assert prune_conversions(tmp_path, 60.0, used + 1) == 2 and list_conversions(tmp_path) == (1, 2)
    assert new.is_dir() and not old.exists()
