"""One process owns a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from durable.folder_lock import FolderLock
from edgepack.errors import BadInput

CHECKOUT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from durable.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_has_the_folder(tmp_path):
    with holder(tmp_path / "data") as process:
        with pytest.raises(BadInput, match=rf"data folder '.*data' is in use by process {process.pid} \(.+\)"):
            FolderLock(tmp_path / "data").acquire()
        process.communicate("")
    with FolderLock(tmp_path / "data"):
        pass


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.communicate()
    with FolderLock(tmp_path):
        pass


def test_the_same_process_does_not_get_a_folder_twice(tmp_path):
    with FolderLock(tmp_path), pytest.raises(BadInput, match="is in use by process"):
        FolderLock(tmp_path).acquire()
    with FolderLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        FolderLock(tmp_path / "file" / "data").acquire()
