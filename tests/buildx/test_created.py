from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from buildx.created import created_for
from edgepack.errors import BadInput


def test_source_date_epoch_decides(tmp_path):
    found = created_for(tmp_path, {"SOURCE_DATE_EPOCH": "1700000000"})
    assert (found.text, found.reason) == ("2023-11-14T22:13:20Z", "SOURCE_DATE_EPOCH")


@pytest.mark.parametrize("text", ["now", "1.5", "99999999999999999999"])
def test_a_source_date_epoch_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(BadInput, match="SOURCE_DATE_EPOCH is"):
        created_for(tmp_path, {"SOURCE_DATE_EPOCH": text})


def test_the_last_commit_that_touched_the_project_decides(tmp_path):
    def git(*words, when="1600000000"):
        who = {f"GIT_{role}_{what}": "a" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {"GIT_AUTHOR_DATE": f"{when} +0000", "GIT_COMMITTER_DATE": f"{when} +0000"}
        subprocess.run(
            ["git", "-C", tmp_path, *words], check=True, capture_output=True, env={**os.environ, **who, **dates}
        )

    git("init")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/a").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    (tmp_path / "other").write_text("1")
    git("add", ".")
    git("commit", "-m", "two", when="1700000000")
    found = created_for(tmp_path / "project", {})
    assert found.text == "2020-09-13T12:26:40Z"
    assert found.revision
    assert len(found.revision) == 40
    assert created_for(tmp_path / "project/a", {}).revision == found.revision


def test_without_either_it_is_a_fixed_date_and_says_so(tmp_path):
    found = created_for(tmp_path, {})
    assert found.text == "2024-01-01T00:00:00Z"
    assert found.reason.startswith("a fixed date")
    assert found.revision is None


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("git"), reason="giving files to another user needs root")
def test_a_repository_of_another_owner_is_not_read_and_the_reason_says_so(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    created = created_for(tmp_path, {})
    assert created.text == "2024-01-01T00:00:00Z"
    assert "git does not read a repository of another owner" in created.reason
