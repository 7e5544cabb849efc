from __future__ import annotations

import os
import subprocess
from pathlib import Path

from runtimes.scratch import delete, usage


def test_all_below_is_counted_and_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(1000))
    place = tmp_path / "place"
    (place / "deep" / "deeper").mkdir(parents=True)
    (place / "deep" / "file").write_bytes(bytes(50_000))
    (place / "link").symlink_to(outside)
    (place / "loop").symlink_to(place)
    size, count = usage(place)
    assert count == 5
    assert 50_000 <= size < 100_000
    assert usage(tmp_path / "nothing") == (0, 0)


def test_a_folder_is_deleted_without_what_links_in_it_lead_to(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    place = tmp_path / "place"
    place.mkdir()
    (place / "link").symlink_to(outside)
    delete(place)
    assert not place.exists()
    link = tmp_path / "link"
    link.symlink_to(outside)
    delete(link)
    delete(tmp_path / "nothing")
    assert [path.name for path in outside.iterdir()] == ["kept"]


def test_a_tree_of_any_depth_is_counted_and_does_not_stop_us(tmp_path):
    before = Path.cwd()
    try:
        place = tmp_path / "place"
        place.mkdir()
        os.chdir(place)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(before)
    assert usage(place)[1] > 1000
    delete(place)
    subprocess.run(["rm", "-rf", str(place)], check=True)
    assert not place.exists()
