"""Where a bundle comes from: told where git knows it, and silent where not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from arch.target import host_target
from packager.package import package
from packager.project import Project
from packager.provenance import provenance
from tests import make


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", folder, *names, *arguments], check=True, capture_output=True)


def test_commit_and_branch_stand_in_the_report_and_not_in_the_digest(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    before = package(Project.open(path), [host_target()])
    assert "commit" not in before.parity["provenance"]
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    found = package(Project.open(path), [host_target()])
    told = found.parity["provenance"]
    assert len(told["commit"]) == 40 and told["branch"] == "main" and told["has_changes"] is False
    assert told["models"]["m"]["framework"] == "onnx"
    assert found.index.digest == before.index.digest
    assert [check["key"] for check in found.parity["checks"]] == [check.key for check in found.checks]


def test_a_change_since_the_commit_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "a").write_text("2")
    assert provenance(tmp_path, [])["has_changes"] is True


def test_what_an_onnx_file_says_of_its_making_is_told(tmp_path: Path) -> None:
    model = make.linear()
    model.producer_name, model.producer_version = "trainer", "7.1"
    entry = model.metadata_props.add()
    entry.key, entry.value = "epochs", "12"
    found = package(Project.open(make.save(model, tmp_path / "m.onnx")), [host_target()])
    told = found.parity["provenance"]["models"]["m"]["training"]
    assert told == {"producer": "trainer", "producer_version": "7.1", "epochs": "12"}
