"""What `.model-ignore` names stays behind, by the rules of a `.gitignore`."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.archives import open_tree
from packager.dialects import ads_layout
from packager.dialects.ads_ignored import Pattern, is_ignored


@pytest.mark.parametrize(
    "pattern, left",
    [
        ("*.txt", {"a/b.csv"}),
        ("a/", {"c.txt"}),
        ("/c.txt", {"a/b.csv", "a/d.txt"}),
        ("**/d.txt", {"a/b.csv", "c.txt"}),
        ("a/*.csv", {"a/d.txt", "c.txt"}),
        ("*\n!c.txt\n!score.py", {"c.txt"}),
        ("d.txt", {"a/b.csv", "c.txt"}),
    ],
)
def test_what_model_ignore_names_stays_behind(tmp_path: Path, pattern: str, left: set[str]) -> None:
    for name in ("a/b.csv", "a/d.txt", "c.txt", "score.py"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text("x")
    (tmp_path / "x/.model-ignore").write_text(pattern)
    assert set(ads_layout.without_ignored(open_tree(tmp_path / "x", tmp_path)).files) == left | {"score.py"}


@pytest.mark.parametrize(
    "line, named, other",
    [
        ("a/*.csv", "a/b.csv", "a/b/c.csv"),
        ("a/?.csv", "a/b.csv", "a//.csv"),
        ("a/*", "a/b/c.csv", "b/a/c.csv"),
        ("a/**", "a/b/c.csv", "a"),
        ("a/**/c.csv", "a/c.csv", "a/b/d.csv"),
        ("a/**/c.csv", "a/b/d/c.csv", "b/c.csv"),
        ("**/b/*.csv", "a/b/c.csv", "a/b/d/c.csv"),
        ("b/", "a/b/c.csv", "a/b"),
        ("/b", "b/c.csv", "a/b"),
        (r"\#x", "#x", r"\#x"),
        (r"\!x", "!x", "x"),
        (r"\*.csv", "*.csv", "b.csv"),
        ("x\\ ", "x ", "x"),
        ("x  ", "a/x", "a/x "),
        ("[ab].csv", "a/b.csv", "a/c.csv"),
        ("**/" * 40 + "x", "a/" * 60 + "x", "a/" * 60 + "y"),
    ],
)
def test_a_line_is_matched_part_by_part(line: str, named: str, other: str) -> None:
    pattern = Pattern.parse(line)
    assert pattern.fits(named) and not pattern.fits(other)


def test_the_last_line_that_fits_decides() -> None:
    patterns = [Pattern.parse(line) for line in ("*.csv", "!keep/*.csv", "keep/not.csv")]
    found = {path: is_ignored(path, patterns) for path in ("a.csv", "keep/a.csv", "keep/not.csv", "a.txt")}
    assert found == {"a.csv": True, "keep/a.csv": False, "keep/not.csv": True, "a.txt": False}
