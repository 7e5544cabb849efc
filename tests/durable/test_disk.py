"""One suite for the real disk and for the one in memory, so that what the fake proves holds."""

import os
import random
from pathlib import Path

import pytest

from durable.disk import DISK, Disk
from tests.fakes.disk import MemoryDisk


@pytest.fixture(params=["real", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return DISK if request.param == "real" else MemoryDisk()


@pytest.fixture
def folder(disk: Disk, tmp_path: Path) -> Path:
    if disk is DISK:
        return tmp_path
    disk.make_folder(Path("/disk"))
    return Path("/disk")


def test_bytes_written_at_an_offset_are_read(disk, folder):
    handle = disk.create(folder / "a")
    disk.write(handle, 0, b"hello world")
    disk.write(handle, 6, b"there")
    disk.sync(handle)
    disk.close(handle)
    assert disk.read(folder / "a") == b"hello there"
    assert disk.read(folder / "a", 5) == b"hello"
    assert disk.read(folder / "a", 500) == b"hello there"
    assert disk.size(folder / "a") == 11


def test_room_that_was_set_aside_reads_as_zeros_until_it_is_cut(disk, folder):
    handle = disk.create(folder / "a")
    disk.preallocate(handle, 100)
    disk.write(handle, 0, b"abc")
    assert disk.read(folder / "a") == b"abc" + bytes(97)
    disk.truncate(handle, 2)
    disk.close(handle)
    assert disk.read(folder / "a") == b"ab"


def test_a_name_is_made_once(disk, folder):
    disk.close(disk.create(folder / "a"))
    with pytest.raises(FileExistsError):
        disk.create(folder / "a")
    disk.make_folder(folder / "b")
    with pytest.raises(FileExistsError):
        disk.make_folder(folder / "b")
    assert disk.is_folder(folder / "b")
    assert not disk.is_folder(folder / "a")
    assert disk.names(folder) == ["a", "b"]


def test_a_rename_replaces(disk, folder):
    for name in ("a", "b"):
        handle = disk.create(folder / name)
        disk.write(handle, 0, name.encode())
        disk.close(handle)
    disk.rename(folder / "a", folder / "b")
    assert disk.names(folder) == ["b"]
    assert disk.read(folder / "b") == b"a"


def test_a_file_that_is_open_can_be_renamed_and_removed(disk, folder):
    handle = disk.create(folder / "a")
    disk.rename(folder / "a", folder / "b")
    disk.write(handle, 0, b"still here")
    assert disk.read(folder / "b") == b"still here"
    disk.unlink(folder / "b")
    disk.sync(handle)
    disk.close(handle)
    assert disk.names(folder) == []


def test_what_is_missing_is_a_file_not_found(disk, folder):
    for call in (disk.read, disk.size, disk.unlink, disk.open):
        with pytest.raises(FileNotFoundError):
            call(folder / "a")
    with pytest.raises(FileNotFoundError):
        disk.rename(folder / "a", folder / "b")
    with pytest.raises(FileNotFoundError):
        disk.names(folder / "none")
    with pytest.raises(FileNotFoundError):
        disk.sync_folder(folder / "none")
    with pytest.raises(FileNotFoundError):
        disk.sync_file_system(folder / "none")


def test_a_file_system_is_synced_from_any_folder_in_it(disk, folder):
    disk.make_folder(folder / "in")
    disk.close(disk.create(folder / "in" / "a"))
    disk.sync_file_system(folder)
    assert disk.names(folder / "in") == ["a"]


def test_the_mode_of_a_new_file_does_not_depend_on_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        DISK.close(DISK.create(tmp_path / "a", 0o644))
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else():
    disk, folder = MemoryDisk(), Path("/disk")
    disk.make_folder(folder)
    disk.sync_folder(Path("/"))
    handle = disk.create(folder / "kept")
    disk.write(handle, 0, b"durable")
    disk.sync(handle)
    disk.sync_folder(folder)
    disk.write(handle, 0, b"DURABLE")
    disk.close(disk.create(folder / "lost"))
    states = list(disk.crash_states(random.Random(1), 60))
    contents = {state.read(folder / "kept") for state in states}
    assert contents == {b"durable", b"DURABLE"}
    assert {tuple(state.names(folder)) for state in states} == {("kept",), ("kept", "lost")}
    assert not disk.crash_states(random.Random(1), 2).__next__().has_pending
