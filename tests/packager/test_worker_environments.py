from __future__ import annotations

import os
from pathlib import Path

import pytest

from oci.digest import Digest
from packager.worker_environments import (
    list_worker_environments,
    prune_worker_environments,
    worker_environments,
)
from runtimes.environment import make_environment
from tests.runtimes.environments import wheel

NOW_S = 1_500_000_000.0
DAY_S = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two environments that share a wheel of 90,000 bytes; the second was used today."""
    tool = wheel(tmp_path / "w", "tool", {"tool.bin": bytes(90_000)})
    wheels = {each: Digest.of(each.read_bytes()) for each in (tool, wheel(tmp_path / "w", "other", {"other.py": b""}))}
    with worker_environments(tmp_path / "cache") as folder:
        old = make_environment({tool: wheels[tool]}, folder)
        os.utime(old, (NOW_S - 40 * DAY_S, NOW_S - 40 * DAY_S))
        os.utime(make_environment(wheels, folder), (NOW_S, NOW_S))
    return tmp_path / "cache"


def test_what_environments_share_counts_once(cache: Path) -> None:
    count, size = list_worker_environments(cache)
    assert count == 2
    assert 90_000 <= size < 100_000


def test_those_that_nothing_used_for_long_are_removed(cache: Path) -> None:
    prune_worker_environments(cache, 30 * DAY_S, NOW_S)
    assert list_worker_environments(cache)[0] == 1
    assert prune_worker_environments(cache, 0, NOW_S) >= 90_000
    assert list_worker_environments(cache) == (0, 0)


def test_nothing_is_removed_while_a_program_is_using_them(cache: Path) -> None:
    with worker_environments(cache):
        assert prune_worker_environments(cache, 0, NOW_S) == 0
    assert list_worker_environments(cache)[0] == 2


def test_using_one_again_keeps_it(cache: Path, tmp_path: Path) -> None:
    (tool,) = (tmp_path / "w").glob("tool-*")
    with worker_environments(cache) as folder:
        site = make_environment({tool: Digest.of(tool.read_bytes())}, folder)
    assert site.stat().st_mtime > NOW_S - 40 * DAY_S


def test_without_any_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert list_worker_environments(tmp_path) == (0, 0)
    assert prune_worker_environments(tmp_path, 0, NOW_S) == 0
