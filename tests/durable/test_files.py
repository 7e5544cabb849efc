"""Durable before visible: under its final name a file is old or new, never half, at every cut and every refusal."""

import errno
import random
from pathlib import Path

import pytest

from durable.files import make_folder, publish, sweep, write_atomically
from tests.fakes.disk import ForgetfulDisk, MemoryDisk, Refusal

FOLDER = Path("/disk")
CHANGES = {"create", "write", "sync", "rename", "sync_folder"}
NEW = [b"new " * 200, b"and more " * 200]


def disk_with(content: bytes | None, disk: MemoryDisk) -> MemoryDisk:
    disk.make_folder(FOLDER)
    MemoryDisk.sync_folder(disk, Path("/"))
    if content is not None:
        handle = disk.create(FOLDER / "file")
        disk.write(handle, 0, content)
        MemoryDisk.sync(disk, handle)
        disk.close(handle)
        MemoryDisk.sync_folder(disk, FOLDER)
    return disk


def found(disk: MemoryDisk) -> bytes | None:
    return disk.read(FOLDER / "file") if "file" in disk.names(FOLDER) else None


def contents_after_cuts(disk: MemoryDisk, states: int = 40) -> tuple[set[bytes | None], set[bytes | None]]:
    """What a cut leaves under the final name: at any moment during the write, and after it returned."""
    during: set[bytes | None] = set()
    rng = random.Random(3)
    disk.after = lambda action: during.update(found(state) for state in disk.crash_states(rng, states))
    write_atomically(FOLDER / "file", iter(NEW), disk=disk)
    return during, {found(state) for state in disk.crash_states(rng, states)}


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_cut_at_any_moment_leaves_the_old_content_or_the_new(old):
    during, afterwards = contents_after_cuts(disk_with(old, MemoryDisk()))
    assert during == {old, b"".join(NEW)}
    assert afterwards == {b"".join(NEW)}


@pytest.mark.parametrize("forgets", ["sync", "sync_folder"])
def test_a_disk_that_forgets_to_sync_is_caught(forgets):
    during, afterwards = contents_after_cuts(disk_with(b"old", ForgetfulDisk(forgets=forgets)))
    assert afterwards != {b"".join(NEW)}
    assert forgets != "sync" or not during <= {b"old", b"".join(NEW)}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("nth", range(1, 7))
def test_a_refusal_at_any_call_leaves_the_old_content_and_no_rubbish(code, nth):
    disk = disk_with(b"old", MemoryDisk())
    disk.before = Refusal(CHANGES, nth, code)
    with pytest.raises(OSError, match="refused by the test"):
        write_atomically(FOLDER / "file", NEW, disk=disk)
    assert disk.names(FOLDER) == ["file"]
    assert disk.open_handles == 0
    assert found(disk) == (b"old" if nth < 6 else b"".join(NEW))  # the last call is the sync of the folder
    write_atomically(FOLDER / "file", b"newest", disk=disk)
    assert {found(state) for state in disk.crash_states(random.Random(1), 20)} == {b"newest"}


def test_a_producer_that_fails_leaves_the_old_content(tmp_path):
    def pieces():
        yield b"half"
        raise RuntimeError("producer failed")

    write_atomically(tmp_path / "file", b"old", mode=0o600)
    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "file", pieces())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_published_folder_is_there_with_all_it_holds(tmp_path):
    stage = tmp_path / ".stage"
    (stage / "deep").mkdir(parents=True)
    (stage / "deep" / "model").write_bytes(b"weights")
    (stage / "deep" / "model").chmod(0o444)
    publish(stage, tmp_path / "final")
    assert (tmp_path / "final" / "deep" / "model").read_bytes() == b"weights"
    assert not stage.exists()


def test_a_published_folder_is_whole_after_every_cut():
    disk = disk_with(None, MemoryDisk())
    disk.make_folder(FOLDER / ".stage")
    disk.make_folder(FOLDER / ".stage" / "deep")
    for path in (FOLDER / ".stage" / "a", FOLDER / ".stage" / "deep" / "b"):
        handle = disk.create(path)
        disk.write(handle, 0, b"content")
        disk.close(handle)
    seen = 0

    def check(action: str) -> None:
        nonlocal seen
        for state in disk.crash_states(random.Random(seen), 30):
            if "final" in state.names(FOLDER):
                seen += 1
                assert state.read(FOLDER / "final" / "a") == b"content"
                assert state.read(FOLDER / "final" / "deep" / "b") == b"content"

    disk.after = check
    publish(FOLDER / ".stage", FOLDER / "final", disk=disk)
    assert seen > 20


def test_folders_are_made_durably_down_to_the_last():
    disk = MemoryDisk()
    make_folder(Path("/a/b/c"), disk=disk)
    make_folder(Path("/a/b/c"), disk=disk)
    for state in disk.crash_states(random.Random(1), 20):
        assert state.is_folder(Path("/a/b/c"))


def test_what_a_cut_left_behind_is_swept():
    disk = disk_with(b"old", MemoryDisk())
    disk.before = Refusal({"unlink", "rename"}, 1, errno.EIO, lasting=True)
    with pytest.raises(OSError):
        write_atomically(FOLDER / "file", b"new", disk=disk)
    assert len(disk.names(FOLDER)) == 2
    disk.before = lambda action, name: None
    sweep(FOLDER, disk=disk)
    assert disk.names(FOLDER) == ["file"]


def large_tree(disk: MemoryDisk) -> Path:
    disk_with(None, disk)
    tree = FOLDER / "made"
    for folder in (tree, tree / "in"):
        disk.make_folder(folder)
        for number in range(300):
            handle = disk.create(folder / f"{number}")
            disk.write(handle, 0, b"whole")
            disk.close(handle)
    return tree


def test_a_tree_of_many_files_is_whole_under_its_final_name_after_any_cut():
    disk = MemoryDisk()
    tree = large_tree(disk)
    calls: list[str] = []
    disk.before = lambda action, name: calls.append(action)
    publish(tree, FOLDER / "final", disk=disk)
    assert calls.index("rename") > calls.index("sync")
    for state in disk.crash_states(random.Random(1), 10):
        assert state.names(FOLDER) == ["final"]
        assert all(state.read(FOLDER / "final" / "in" / f"{number}") == b"whole" for number in range(300))


def test_a_tree_of_many_files_is_synced_with_its_file_system_at_once():
    asked: list[Path] = []

    class Noting(MemoryDisk):
        def sync_file_system(self, folder: Path) -> None:
            asked.append(folder)
            super().sync_file_system(folder)

    disk = Noting()
    publish(large_tree(disk), FOLDER / "final", disk=disk)
    assert asked[0] == FOLDER / "made"
