from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildx.lock import Lock, LockedBase, LockedPackage, LockedTarget, LockedWheel, LockFile
from buildx.report import Quiet
from edgepack.errors import BadInput

LOCK = Lock(
    {"amd64": LockedBase("bookworm", [LockedPackage("libc6", "2.36-9", "a" * 64, 5)])},
    {
        "x86/none": LockedTarget(
            "3.11", ["flask>=3"], [LockedWheel("flask", "3.1", "flask-3.1-py3-none-any.whl", "b" * 64, 7)]
        )
    },
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


def test_a_lock_reads_back_as_it_was_written():
    assert Lock.decode(LOCK.encode(), "edgepack.lock") == LOCK


@given(st.lists(st.builds(LockedPackage, TEXTS, TEXTS, TEXTS, st.integers(0, 2**40)), max_size=4))
def test_any_name_and_version_survives(packages):
    lock = Lock({"arm64": LockedBase("bookworm", packages)})
    assert Lock.decode(lock.encode(), "edgepack.lock") == lock


def test_the_file_says_what_it_is_and_has_one_line_a_package_and_no_addresses():
    text = LOCK.encode()
    assert text.startswith("# Written by edgepack")
    assert '  { name = "libc6", version = "2.36-9", sha256 = "' + "a" * 64 + '", size = 5 },\n' in text
    assert not re.search(r"https?:|file:", text)


@pytest.mark.parametrize(
    "text", ["format = 2", "nonsense", "format = 1\nextra = 1", "format = 1\n[base.amd64]\nrelease = 3"]
)
def test_a_lock_that_does_not_read_says_what_to_do(text):
    with pytest.raises(BadInput, match=r"delete it to have it made anew|update edgepack"):
        Lock.decode(text, "edgepack.lock")


def test_a_lock_is_written_beside_the_project_once(tmp_path):
    kept = LockFile(tmp_path, tmp_path / "cache", Quiet())
    assert kept.read() == Lock()
    kept.write(LOCK)
    before = (tmp_path / "edgepack.lock").stat().st_mtime_ns
    kept.write(LOCK)
    assert (tmp_path / "edgepack.lock").stat().st_mtime_ns == before
    assert kept.read() == LOCK


def test_a_project_that_cannot_be_written_keeps_its_lock_in_the_cache_and_says_so(tmp_path):
    """A file where the project's folder should be cannot be written by root either."""
    (tmp_path / "project").write_text("")
    report = Quiet()
    kept = LockFile(tmp_path / "project", tmp_path / "cache", report)
    kept.write(LOCK)
    assert "the lock is kept in" in report.notices[0]
    assert kept.read() == LOCK
